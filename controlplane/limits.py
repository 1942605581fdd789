"""Every bound of the controller, each with its reason."""

from datetime import timedelta

PAGE_SIZE_DEFAULT = 50
PAGE_SIZE_MAX = 1000
"""A page of the largest resource stays well under the message bound."""

MESSAGE_BYTES_MAX = 9 << 20
"""Largest gRPC message: a sample's content of 8 MiB and its description."""
SAMPLE_BYTES_MAX = 8 << 20
SAMPLES_WRITTEN_AT_ONCE = 32
"""In one transaction, which other writes wait for: some milliseconds."""
CHUNK_BYTES_MAX = 1 << 20
"""Measured optimum for streaming bytes over gRPC."""

# --- identity, servers and sync -------------------------------------------------------------------

AGENT_CERTIFICATE_TTL_DEFAULT = timedelta(days=30)
"""Agents renew at two thirds of it: a month leaves ten days to notice a broken renewal."""
AGENT_CERTIFICATE_TTL_MIN = timedelta(seconds=10)
"""Below that a renewal cannot be counted on to arrive in time."""
AGENT_CERTIFICATE_TTL_MAX = timedelta(days=825)
"""What common TLS stacks accept at most."""
JOIN_TOKEN_USES_MAX = 10_000
"""The largest fleet of one controller."""
JOIN_TOKEN_TTL_MAX = timedelta(days=365)
LABELS_MAX = 64
"""Of one agent; every selector reads them all."""
STALE_TRIES_MAX = 10
"""Each loss means that somebody else won; ten in a row mean a storm that waiting callers should not feed."""
CA_CERTIFICATE_TTL = timedelta(days=3650)
"""Agents pin the CA: changing it means enrolling the fleet anew."""
SERVER_CERTIFICATE_TTL = timedelta(days=90)
SERVER_CERTIFICATE_RENEW_BEFORE = timedelta(days=30)
"""Issued anew by the running controller, which looks every SERVER_CERTIFICATE_CHECK_SECONDS."""
SERVER_CERTIFICATE_CHECK_SECONDS = 3600
CHILD_START_SECONDS = 60.0
"""For imports on a busy machine, and for BIND_RETRY_SECONDS of each listener."""
RESTART_SECONDS_MIN = 0.2
RESTART_SECONDS_MAX = 30.0
"""A child that fails at once is started ever more slowly, and never given up."""
OPEN_FILES_MIN = 20_000
"""A descriptor an agent, twice over while a fleet reconnects."""
SYNC_INTERVAL_SECONDS_DEFAULT = 2.0
"""Feels immediate, and a message costs less than a millisecond: hundreds of agents. Thousands take 10 s."""
BIND_RETRY_SECONDS = 5.0
"""A killed predecessor's bytes process needs a moment to let go of its ports."""
SHUTDOWN_GRACE_SECONDS = 4.0
"""Calls under way may end; with the rest of the shutdown it stays under 5 s."""
FLEET_GRACE_SECONDS = 1.0
"""For reports and renewals under way; Sync streams would never end."""
BIND_RETRY_INTERVAL_SECONDS = 0.1
CONNECTION_AGE_MAX = timedelta(hours=1)
"""TLS looks at a certificate in the handshake only: within an hour each agent shakes hands again."""
CONNECTION_GRACE = timedelta(seconds=10)
"""A Sync stream has no end of its own; it is cut off and opened again."""
BYTES_CONNECTION_GRACE = timedelta(minutes=10)
"""A large blob under way ends first; it would be resumed, but why break it."""
STREAMS_PER_CONNECTION_MAX = 256
"""An agent needs a handful, a console some dozens."""
PENDING_REQUESTS_MAX = 20_000
PENDING_REQUESTS_HARD_MAX = 30_000
"""A fleet of 10,000 that reconnects at once is accepted whole; gRPC's default dropped 5,500 of it."""
KEEPALIVE_INTERVAL = timedelta(seconds=20)
KEEPALIVE_TIMEOUT = timedelta(seconds=10)
"""A station that lost power is noticed within half a minute."""
CLIENT_PING_INTERVAL_MIN = timedelta(seconds=5)
"""Clients that ping more often are sent away."""
REVOCATION_AGE_SECONDS = 1.0
"""A revocation made in another process shows within it: less than any sync interval."""
OPERATOR_TOKEN_AGE_SECONDS = 5.0
"""A busy console asks many times a second; a revoked operator token may live on for so long."""
OPERATOR_TOKENS_CACHED_MAX = 1_000
OBSERVATION_FLUSH_SECONDS = 0.1
OBSERVATION_RETRY_SECONDS = 1.0
"""After a write that failed; a full disk lasts longer than any flush interval."""
OBSERVATION_ROWS_MAX = 1_000
"""A commit a report would let a database do 1,000 a second; 1,000 a commit lets it do 40,000."""
TELLING_STREAMS_MIN = 100
"""Streams that have a change to tell at one time, from which on reports wait: fewer are told within milliseconds."""
TELLING_SECONDS_MAX = 3.0
"""For so long reports wait for a change that is told to many: most of 10,000 agents are told by then. Far less than the
silence after which an agent counts as disconnected."""
TOLD_REPORTS_PER_SECOND = 2_000
"""As many as agents that were told together are asked to report within a second: 10,000 spread it over 5 s, and the
telling of the last does not wait for what the first have to say."""
DESIRED_AGE_SECONDS = 30.0
"""A stream looks for itself that often, should a notice have been lost or the change made elsewhere."""
SHARED_READ_PAUSE_SECONDS = 0.01
"""Between two reads on behalf of many streams: a hundred transactions a second are what a reconnecting fleet costs."""
ANSWERED_A_TURN = 200
"""Streams that a broadcast wakes before the event loop has its turn: some 30 ms."""
VERSIONS_CACHED_MAX = 1_000
"""A version's manifest is some kilobytes a gigabyte of weights."""
SLOT_MESSAGES_CACHED_MAX = 1_000
"""Desired slots as they are told; a fleet has some for each deployment."""
SLOT_TEXTS_CACHED_MAX = 16_384
"""Agents whose observed slots are kept as they are written, some kB each: more than one controller's."""
OBSERVED_SLOTS_MAX = 256
OBSERVED_CONDITIONS_MAX = 64
DEVICES_MAX = 64
"""Far above any box; they bound what one agent can make the controller store."""
NACK_CHARS_MAX = 4096
"""Of a failure in words; a compiler's whole log belongs on the box."""
SYNC_INBOX_MAX = 4
"""Messages of one stream that wait for their answer."""
AGENT_SILENT_INTERVALS_MAX = 5
"""Sync intervals without a word after which an agent counts as disconnected."""
PEERS_CACHED_MAX = 50_000
"""Five times the fleet that one controller holds; about 1.5 kB each."""

UPLOAD_BYTES_MAX = 16 << 30
"""Largest blob: twice the largest weights that run at a station."""
UPLOADS_MAX = 1000
"""Unfinished uploads at a time: a SavedModel has tens of files, so this is tens of publishers."""
UPLOAD_AGE_SECONDS_MAX = 7 * 86400
"""An upload that nobody touched for so long is abandoned and its bytes are dropped."""
UPLOAD_DISK_RESERVE_BYTES = 256 << 20
"""Free space that an upload leaves, so that the database beside it can go on."""
ARTIFACT_FILES_MAX = 1000
"""Files of an artifact: every known format has fewer than a hundred."""

INSPECTION_SECONDS_MAX = 120
"""Reading is parsing, not compiling: seconds for the largest models."""
INSPECTION_CPU_SECONDS_MAX = 120
INSPECTION_MEMORY_BYTES_MAX = 2 << 30
"""Address space of the child besides the model: OpenVINO and Python map a third of a GiB."""
INSPECTION_MEMORY_PER_MODEL_BYTE = 3
"""The file mapped, the weights as constants, and one conversion of them."""
INSPECTIONS_AT_ONCE_MAX = 2
"""Each may take a core and gigabytes."""
INSPECTION_OUTPUT_BYTES_MAX = 1 << 20
RT_INFO_LEAVES_MAX = 1000
RT_INFO_VALUE_BYTES_MAX = 64 << 10
"""The labels of ImageNet take 22 kB; a longer leaf is left out, never cut."""
TENSORS_MAX = 1000
"""Inputs and outputs of a model."""

EVALUATION_SECONDS_MAX = 3600.0
"""Of one model on a whole holdout: HOLDOUT_ITEMS_MAX inputs at 100 ms each take half of it."""
EVALUATION_MEMORY_BYTES_MAX = 4 << 30
"""Address space of the child besides the model: compiled code, and the tensors of one input."""
EVALUATION_MEMORY_PER_MODEL_BYTE = 6
"""As in an inspection, and once more what compiling makes of the weights."""
EVALUATION_LET_GO_SECONDS_MAX = 5.0
"""A pipe whose every writer was killed ends at once."""
EVALUATION_LINE_BYTES_MAX = 1 << 20
"""Scores of one input: 20 bytes each of tens of thousands of classes."""
EVALUATION_PIXELS_MAX = 100_000_000
"""Of a picture; what a camera of 100 megapixels sends."""
HOLDOUT_ITEMS_MAX = 20_000
"""Items that a candidate is judged on, the first by their digests: intervals are narrow long before."""
JUDGEMENT_CONFIDENCE_MAX = 0.999_999
"""Beyond it the normal distribution says little of real data."""
POLICY_LABELS_MAX = 1_000_000
POLICY_INTERVAL_SECONDS_MAX = 365 * 86400.0
"""Far above any use: more is a slip of the pen."""
TRIGGER_TICK_SECONDS = 5.0
"""A few counts a policy; no label is in such a hurry."""
JUDGING_TICK_SECONDS = 2.0
"""A look at a few rows; what is found takes minutes."""
PROMOTION_TICK_SECONDS = 2.0
"""An operator who has approved waits for it."""
PROMOTION_RETRY_SECONDS = 20.0
"""What could not go out is tried again: each try reads the fleet, and what it waits for takes people minutes."""
LINEAGE_DEPTH_MAX = 100
"""Versions back: a new one a week for two years."""
LINEAGE_ROLLOUTS_MAX = 100

ARTIFACT_PATH_BYTES_MAX = 1024
ARTIFACT_NAME_BYTES_MAX = 255
"""What the file systems of stations take."""
DESCRIPTION_CHARS_MAX = 4096
"""Descriptions and notes are sentences."""
PUBLISH_TRIES_MAX = 10
"""Writes tried when other publishers of the same model are faster; each loss means that one of them won."""

EVIDENCE_RESULTS_MAX = 20_000
"""Results of a batch: at some 200 bytes each they fit MESSAGE_BYTES_MAX."""
EVIDENCE_WINDOWS_MAX = 1000
"""Windows of a batch: slots x versions x devices of one agent."""
RESULT_LABELS_MAX = 5
RESULT_TEXT_CHARS_MAX = 1024
"""Part ids, request ids, labels and error texts are cut to it. A page of results stays under the message bound."""
LATENCY_RELATIVE_ACCURACY = 0.01
"""Of every agent's sketch; one value everywhere, so that bins of any two agents add."""
LATENCY_BIN_KEY_MAX = 4096
"""gamma ** 4096 is beyond any latency in milliseconds, so a key outside is no measurement."""
METRIC_WINDOWS_A_TURN = 200
"""Windows read and merged before the event loop has its turn: some 10 ms, less than a sync may wait."""
METRIC_TIME_DEFAULT = timedelta(hours=24)
"""What is asked for without a start: the last two or three shifts, and well within METRIC_WINDOWS_MAX."""
METRIC_WINDOWS_MAX = 200_000
"""Windows that one query may merge: a window a minute of a hundred agents for a day."""

EVIDENCE_SETTLE_SECONDS = 300.0
"""A batch shows later than the time at which it was received: after STALE_TRIES_MAX waits of DATABASE_WAIT_SECONDS at
most, and by as much as the clocks of replicas differ. What is older is added up once."""
EVIDENCE_BASELINE_SECONDS = 3600.0
"""Before a rollout began: what the version before did in it is what the new one is compared with. An hour of a line at
one part in ten seconds are 360 inferences."""
EVIDENCE_AGENTS_A_SECOND = 1000
"""Counts of so many agents are read again after a second, of more after longer: some 10 % of a core."""
DISTRIBUTION_AGENTS_A_SECOND = 50
"""The same of distributions, which are decoded and merged one by one."""
DISTRIBUTION_AGENTS_MAX = 50
"""Agents of one device class whose distributions a gate reads, the first that were given the version: what they measure
decides a quantile, and a wave of 10,000 would cost minutes to read."""
LABEL_COUNTS_MAX = 65
"""Labels of a window: the 64 that an agent counts, and the rest under ""."""

DATABASE_CONNECTIONS_MAX = 16
"""Of one process. A connection to SQLite is a thread; more readers than this only take turns on two cores."""
DATABASE_WAIT_SECONDS = 20.0
"""For a connection, or for the turn to write: less than the deadline of a unary call, many times the longest write."""
DATABASE_CONNECT_SECONDS = 10
DATABASE_IDLE_SECONDS = 60.0
"""PostgreSQL ends a transaction whose process stopped in the middle, so that it does not hold its locks for good."""
DATABASE_BATCH_MAX = 500
"""Values that one statement names: SQLite takes 32,766 variables and PostgreSQL 65,535, at up to 7 a row."""
ASSIGNED_A_TURN = 1_000
"""Agents whose desired state is found before the event loop has its turn: some 30 ms."""
DATABASE_ROWS_A_TURN = 50
"""Rows decoded before the event loop has its turn: at some 0.1 ms an agent, 5 ms."""
SLOT_ROWS_A_TURN = 2_000
"""Rows of desired slots taken before the event loop has its turn: most are alike, some 5 ms."""
MIGRATION_WAIT_SECONDS = 300.0
"""A replica waits so long for another one's migration."""
MIGRATION_LOCK_SECONDS = 30.0
"""A migration gives up rather than queue every reader of a busy table behind it."""

# --- deployments and rollouts ---------------------------------------------------------------------

AGENT_SILENT_SECONDS_MAX = 15.0
"""An agent that was silent for longer is DISCONNECTED: several sync intervals, so that one lost message is none."""
SELECTOR_CHARS_MAX = 1024
"""Read for every agent at every convergence."""
DEPLOYMENT_PRIORITY_MAX = 1000
"""Either side of 0: room to put a deployment between any two, and still a number that people compare at a glance."""
REASON_CHARS_MAX = 1024
"""Of a pin or a yank: it stands in refusals and explanations."""
CLOCK_SKEW_SECONDS_MAX = 60.0
"""An agent's clock further off than this is told as a condition: times of its results are off by as much. Well above
what a slow link and a queue of messages make of a right one."""
POLICY_DEVICES_MAX = 32
"""More than any box has."""
WAVES_MAX = 50
"""An operator reads them all; each is a bake time."""
BAKE_SECONDS_MAX = 30 * 86400.0
"""A rollout that takes longer than a month has been forgotten."""
GATE_COUNT_MAX = 1 << 40
"""Fits every integer column and message; more inferences than a fleet makes in years."""
ROLLOUT_TICK_SECONDS = 1.0
"""Adds little to any bake time; reads a few rows when no rollout is active."""
JOB_RESTS = 2
"""A job that looks at ten thousand agents takes seconds beside their streams; so it has a third of the time at most."""
CONVERGENCE_TICK_SECONDS = 10.0
"""Only repairs what a crash or a late fact (a device seen at the first sync) left: changes converge at once."""
WATCH_LOOK_SECONDS = 5.0
"""A watcher looks at least so often: a notice lost with a crash costs no more."""

SWAP_WAIT_SECONDS_MAX = 300.0
"""Of a swap for the next lot: a rollout's patience with an agent is longer, and a lot that takes more would hold a bad
version in place."""
ROLLOUT_SECONDS_MAX = 365 * 86400.0
"""A deadline beyond a year is none."""
INSTALL_SECONDS_MIN = 1.0
INSTALL_SECONDS_MAX = 7 * 86400.0
"""The largest weights over the slowest link of a plant take a night, not a week."""
OFFLINE_WAIT_SECONDS_MAX = 30 * 86400.0
"""A box that was away for a month is not waited for."""
PACE_AGENTS_MAX = 1_000_000
PACE_BYTES_MAX = 1 << 40
"""Far above any fleet and link: more is a slip of the pen."""
GATE_PERCENT_MAX = 10_000
"""A hundred times slower or faster than the version before."""
CONFIDENCE_PER_MILLE_MIN = 500
"""Below even odds a check would decide against what it saw."""
LATENCY_MS_MAX = 3_600_000.0
"""An hour; no line waits so long for an answer."""
IDLE_SECONDS_MIN = 1.0
IDLE_SECONDS_MAX = 30 * 86400.0
SHADOW_COMPARISONS_MAX = 100_000_000
"""Of one shadow run; a day's inputs of a large fleet."""
WATCH_LATE_SECONDS = 30.0
"""What another replica decided so long ago may still come into the log: its clock may lag, and its commit wait."""
WATCH_EVENTS_MAX = 200
"""Decisions in one message of a watch: some 200 kB; the rest follows in the next."""
WINDOWS_CACHED_MAX = 256
"""Strategies whose windows are kept read: more than rollouts that are active at a time."""

# --- windows --------------------------------------------------------------------------------------

WINDOWS_MAX = 50
"""Of a rollout; each is matched with every target at every tick."""
CRON_CHARS_MAX = 256
WINDOW_SECONDS_MAX = 31 * 86400.0
"""A window that is open for longer than a month is none."""
PLAN_ROWS_A_MESSAGE = 500
"""Targets of a plan in one message: some 100 kB, and the event loop has its turn in between."""

# --- replicas -------------------------------------------------------------------------------------

LEASE_SECONDS = 10.0
"""How long a controller leads without a word: three renewals, and longer than any write of a leader takes. It is also
how long nobody leads after the leader died; agents and commands do not wait for that."""
LEASE_RENEW_SECONDS = LEASE_SECONDS / 3
"""Two renewals may fail before the lease runs out."""
LEASE_TRY_SECONDS = 1.0
"""Who does not lead tries so often: one statement a second a replica, and a second more until another leads."""
NOTICE_BYTES_MAX = 7_900
"""PostgreSQL takes payloads below 8,000 bytes."""
NOTICE_IDS_MAX = 2_000
"""Above it "all" is told instead: every stream looks once, which is quicker than a hundred payloads of names."""
NOTICE_CHECK_SECONDS = 10.0
"""A silent connection is asked so often whether it lives: a notice lost with it costs no more than that."""
NOTICE_RETRY_SECONDS_MIN = 0.2
NOTICE_RETRY_SECONDS_MAX = 5.0
"""A database that restarts is back within seconds; streams look by themselves meanwhile (DESIRED_AGE_SECONDS)."""

# --- plans ----------------------------------------------------------------------------------------

PLAN_TRAFFIC_SECONDS = 3600.0
"""Inferences of the last hour say how fast evidence will come: long enough for a lot, short enough to be this shift."""
PLAN_FETCH_BYTES_PER_SECOND = 10_000_000
"""Assumed of an agent alone: what a factory's link of 100 Mbit/s gives."""
PLAN_PREPARE_SECONDS = 10.0
"""Assumed between the last byte and a version that is ready: measuring, compiling, warming up."""
PLAN_SWAP_SECONDS = 5.0
"""Assumed of a prepared version: the order on its way, the swap, and the report of it."""
PLAN_OPENINGS_MAX = 100
"""Openings of windows that are looked through for a time when several are open together."""
PLAN_NAMES_MAX = 5
"""Agents that a warning names, so that it stays one line."""

REHEARSAL_PLAYS_DEFAULT = 100
"""Enough for a 95th percentile that means something."""
REHEARSAL_PLAYS_MAX = 1_000
REHEARSAL_BOXES_MAX = 100_000
"""Agents times plays: some minutes of one core."""
REHEARSAL_SECONDS_MAX = 600.0
"""Of a whole rehearsal: an operator waits for it."""
REHEARSALS_AT_ONCE_MAX = 2
"""Each takes a core, with the lowest priority."""
REHEARSAL_TICKS_MAX = 5_000
"""Decisions of one play: a rollout of hundreds of agents takes hundreds."""
REHEARSAL_HORIZON_SECONDS = 30 * 86400.0
"""What takes longer than a month is not worth playing to its end."""
REHEARSAL_OUTAGE_SECONDS_MAX = 30 * 86400.0
REHEARSAL_RESTARTS_A_DAY_MAX = 1_000.0
REHEARSAL_INFERENCES_PER_SECOND_MAX = 100_000.0
REHEARSAL_FETCH_BYTES_PER_SECOND_MAX = 1 << 40
"""Beyond anything real; they keep the arithmetic of a play within sane numbers."""

MALLOC_TRIM_BYTES = 64 << 20
MALLOC_MMAP_BYTES = 16 << 20
"""Above any message, so that its memory is used again instead of being faulted in: 1,174 MB/s instead of 293."""

GARBAGE_SECONDS = 0.25
"""What 10,000 agents leave behind in that time is looked through in some milliseconds."""
GARBAGE_FULL_SECONDS = 3600.0
"""With 10,000 agents the whole heap takes two seconds, in which nobody is answered; what a stream leaves behind in
cycles is some kilobytes."""
BYTES_NICENESS = 19
"""The bytes process takes the processors that the control process leaves: a transfer never delays sync."""

# --- samples ---
CLASS_QUOTAS_MAX = 256
"""Labels of which a policy keeps a quota; more are a mistake, and "" stands for all others."""
REDACTED_REGIONS_MAX = 32
"""Of an image: faces, name plates, screens beside the part."""
SAMPLE_COUNTS_MAX = 32
SAMPLE_COUNT_CHARS_MAX = 63
"""Words for what becomes of samples, twice as many as agents know, and their length."""
INPUT_STATISTICS_MAX = 32
"""Statistics of inputs in one window or sample, four times as many as agents compute."""

# --- training -------------------------------------------------------------------------------------

TRAINING_TICK_SECONDS = 1.0
"""Reads a few rows when nothing trains."""
TRAINING_RUNS_AT_ONCE_MAX = 1
"""Of one controller's local runner: a trainer takes every core it finds. Further runs wait."""
TRAINING_RUNS_QUEUED_MAX = 100
"""Waiting runs; more are a trigger gone wild."""
TRAINING_ATTEMPTS_MAX = 3
"""Of a run whose jobs are lost or killed: a box that restarts or runs out of memory thrice will do so again."""
TRAINING_TIME_SECONDS_DEFAULT = 4 * 3600.0
"""A head takes minutes, a fine-tune of a small net an hour or two on a processor."""
TRAINING_TIME_SECONDS_MAX = 14 * 86400.0
TRAINING_MEMORY_BYTES_DEFAULT = 8 << 30
TRAINING_OUTPUT_BYTES_DEFAULT = 8 << 30
"""Scratch included. It is the controller's disk."""
TRAINING_LOG_BYTES_MAX = 4 << 20
"""Kept of a job's log; of what follows only the end."""
TRAINING_LOG_TAIL_BYTES = 64 << 10
TRAINING_LOG_READ_BYTES = 256 << 10
"""In one message of a log that is read."""
TRAINING_LOG_LOOK_SECONDS = 0.5
"""Who follows a log is told of new lines that often."""
TRAINING_WATCH_SECONDS = 0.2
"""How often a job's warden looks at the clock and whether it is to end; memory and disk are looked at less often."""
TRAINING_MEASURE_SECONDS = 0.6
"""A look at memory reads /proc, some 0.05 ms a process. What grows faster meets the limit of the kernel."""
TRAINING_GRACE_SECONDS = 5.0
"""Between the request to end and the end by force: time for a last line in the log."""
TRAINING_START_SECONDS = 30.0
"""For a warden to come up on a busy machine."""
TRAINING_PROGRESS_BYTES_MAX = 64 << 10
"""Read from the end of the progress file: the last line is all that is asked for."""
TRAINING_METRICS_BYTES_MAX = 64 << 10
TRAINING_METRICS_MAX = 200
TRAINING_WORDS_CHARS_MAX = 500
"""Of a message by a trainer: one line of a table."""
TRAINING_PARAMETERS_BYTES_MAX = 16 << 10
"""As JSON; a longer list belongs into the dataset."""
TRAINERS_MAX = 50
"""In the configuration; an operator picks one from a list."""

# --- results lake ---------------------------------------------------------------------------------

LAKE_LISTED_A_TIME = 1_000
"""Objects of a page of a listing: what clouds give at most."""
LAKE_ROWS_A_GROUP = 131_072
"""Rows that a reader takes or leaves together: DuckDB's own unit, one of which answers for a part."""
LAKE_UNPACKED_BYTES_MAX = 256 << 20
"""Of one batch's file in memory: a small file that unpacks to more is an attack or a fault."""
LAKE_FILE_BYTES_MAX = 8 << 20
"""Of a batch's file, which fits a message; a batch of the most results takes a fifth of it."""
LAKE_FILES_A_BATCH_MAX = 8
"""A batch spans midnight at most once; a clock that jumps may make it a few days more."""
LAKE_OBJECTS_A_PAGE = 32
"""Index rows that a list of results asks for at a time: a page is seldom in more files."""
LAKE_UPLOAD_SECONDS = 900.0
"""How long an agent may put a file under the address it was given: a slow link's time for the largest."""

# --- labels and datasets --------------------------------------------------------------------------

PICTURE_PIXELS_MAX = 64 << 20
"""Of a picture that is decoded: larger than any industrial camera's, and 192 MB at most while it is looked at."""
LABEL_ENTRIES_MAX = 50_000
"""Of one import, which is one transaction and one message: some seconds, and well within MESSAGE_BYTES_MAX."""
LABEL_ERRORS_MAX = 1_000
"""Told of one import; who has more has the wrong file."""
LABEL_CHARS_MAX = 200
"""A class, an annotator, the name of a file."""
REGIONS_MAX = 1_000
"""Of one label; more than anybody draws."""
IMPORT_PICTURES_MAX = 1_000
"""Of one message of an import."""
DATASET_ITEMS_MAX = 500_000
"""Manifests are read whole: some 400 bytes an item."""
WEIGHT_RULES_MAX = 100
SHEET_PICTURES_DEFAULT = 24
SHEET_PICTURES_MAX = 200
"""Of each split and class of a contact sheet."""
SHEET_ROWS_MAX = 60
"""Splits times classes that a sheet shows; the rest is named in its last line."""
CONTENTS_AT_ONCE_MAX = 8
"""Contents that are read from the object store at a time while a dataset is looked through or written out."""

# --- drift ----------------------------------------------------------------------------------------

DRIFT_TICK_SECONDS = 2.0
"""Adds little to the seconds in which a line makes the images that show a drift; reads one empty table when idle."""
DRIFT_AGENTS_A_TICK_MAX = 100
"""Agents looked at in one tick, those that have waited longest, each with all that waits: at four models and 1.5 ms a
slot some 30 % of a core. Up to 100 agents are looked at every two seconds, 10,000 every 200."""
DRIFT_BATCHES_A_TICK_MAX = 1_000
"""Of those agents: decoding them takes some 0.2 s."""
DRIFT_STRETCHES_MAX = 8
"""Windows of one version that wait together are looked at as no more blocks than this, once its reference is whole:
what costs is a block, not how many inferences are in it."""
DRIFT_BACKLOG_MAX = 50_000
"""Batches that wait to be looked at. Above it the oldest are passed over, which costs power and no false alarm: which
windows are looked at does not depend on what is in them."""
DRIFT_VERSIONS_MAX = 4
"""Versions of a slot whose references are kept: what a rollback may return to."""
DRIFT_REFERENCE_COUNT = 500
"""First values of each statistic that make a version's reference: a share is then known to some 10 points, at every
look and for all shares together. A station at one part in ten seconds has it after an hour and a half."""
DRIFT_REFERENCE_FACTOR_MAX = 4
"""A reference whose inferences come in clusters takes up to 2,000."""
DRIFT_SAMPLED_FACTOR_MAX = 40
"""Agents look at 25 inputs a second: of up to 1,000 inferences a second each statistic gets its 500 values."""
DRIFT_REFERENCE_BLOCKS_MAX = 40
"""Enough to see how much blocks vary; of each its histograms are kept until the reference is whole, some 2 kB."""
DRIFT_TOLERANCE = 0.1
"""Ten points of any share may change without being drift: a lot is never quite like the one before. Solar cells that
turn from mono- to poly-crystalline move shares of their sharpness by 40 to 60."""
DRIFT_FALSE_ALARM = 0.001
"""Of a station that stays within the tolerance, as long as its version serves. Of 10,000 stations 10 are flagged for
nothing between two versions; ten times fewer would cost a dozen images more of a real drift."""
DRIFT_BLOCK_COUNT = 25
"""Inferences that are looked at together: 1 s of a fast line, 4 min of a slow one, and a hundredth of the work."""
DRIFT_RECENT_COUNT = 200
"""The recent past that is shown, and after which a drift may end, is 200 to 400 inferences."""
DRIFT_LABELS_MAX = 6
"""Labels told apart, the most frequent ones: each further one makes the evidence for the others weaker."""
DRIFT_HISTORY_WINDOWS_MAX = 50_000
"""Windows that one history reads: a day at one in two seconds, or a month at one a minute."""
DRIFT_HISTORY_POINTS_DEFAULT = 200
DRIFT_HISTORY_POINTS_MAX = 1000
"""More than a screen has places."""
DRIFT_HISTORY_EVENTS_MAX = 1000
LAKE_QUERY_SECONDS_MAX = 60.0
"""An operator waits for it; what takes longer is a job for an engine of its own."""
LAKE_QUERY_MEMORY_BYTES = 1 << 30
"""Of one question: sums over tens of millions of rows take a tenth of it."""
LAKE_QUERIES_AT_ONCE_MAX = 2
"""Each takes two cores at the lowest priority but one."""
LAKE_QUERY_NICENESS = 15
LAKE_QUERY_FILES_MAX = 20_000
"""Whose ends a question reads first: some seconds from a disk."""
LAKE_FETCH_BYTES_MAX = 4 << 30
"""Of a cloud's objects for one question: what the controller's disk lends for a minute."""
LAKE_FETCHES_AT_ONCE = 16
LAKE_ANSWER_BYTES_MAX = 6 << 20
"""As JSON; the message stays under its bound."""
LAKE_ROWS_DEFAULT = 1_000
LAKE_ROWS_MAX = 10_000
LAKE_SQL_CHARS_MAX = 100_000
LAKE_REFUSAL_CHARS_MAX = 1_000
"""Of what DuckDB says is wrong with a question, which repeats it."""
LABELS_GOOD_MAX = 1_000
LAKE_TICK_SECONDS = 60.0
"""Merging, retention and removal: none of it is urgent, each round is bounded."""
LAKE_SWEEP_SECONDS = 6 * 3600.0
"""A sweep lists the whole lake, and finds what a kill left, which is next to nothing."""
LAKE_SETTLE_SECONDS = 300.0
"""After the end of an hour before its files are merged: the last of them are in the index by then."""
LAKE_MERGED_A_ROUND = 2_000
"""Files of a round: an hour of twenty stations that seal a segment every few seconds online, in some seconds."""
LAKE_MERGED_ROWS_MAX = 262_144
"""Of a merged file: two groups of rows, and some 100 MB of memory while it is made."""
LAKE_MERGED_BYTES_MAX = 64 << 20
LAKE_REMOVED_A_ROUND = 1_000
LAKE_WASTE_SECONDS = 900.0
"""How long a file stays that was replaced: longer than any question or page takes."""
LAKE_ORPHAN_SECONDS = 7_200.0
"""An object that the index does not name is waste once it is so old: an upload is taken for an hour at most, and clocks
may differ by another."""
LAKE_ROWS_MOVED_A_ROUND = 10_000
"""Out of the table before the lake: ten million rows are moved within a day."""
RESULT_RETENTION_MIN = timedelta(days=1)
"""Below it a weekend's results would be gone before anybody has seen them."""
RESULT_RETENTION_MAX = timedelta(days=36_500)
"""Whoever wants more wants them for good."""
LAKE_PARTS_REJUDGED_MAX = 500
"""Parts of a page whose samples a version is asked about: half a minute of a small model."""
