"""Every bound of the agent, each with its reason."""

CHUNK_BYTES_MAX = 1 << 20
"""Measured optimum for streaming bytes over gRPC."""
MESSAGE_BYTES_MAX = 9 << 20
"""Largest gRPC message either way: a sample's content of 8 MiB and its description; the controller's bound too."""

# --- waiting ---
BACKOFF_FIRST_SECONDS = 0.5
"""Bound of the first wait; quick enough that a restart of the controller is hardly seen."""
BACKOFF_MAX_SECONDS = 15.0
"""A fleet of 10,000 that waits for its controller asks some 1,300 times a second, about what a core can greet."""
RECONNECT_GROWTH = 1.15
"""Of the bound at each attempt to reach the controller that fails. A dial that is refused costs next to nothing, so the
bound may follow the outage: after T seconds it is some 0.5 + 0.3 T. A restart of 5 s is over for an agent within 2 s of
its end, and 10,000 agents come back from a minute's outage over the whole 15 s."""
CHANNEL_REDIAL_SECONDS = 20.0
"""When a channel whose dial failed dials by itself, and how long a dial may take. Above BACKOFF_MAX_SECONDS, since our
own loops say when to dial: a fleet whose channels did so by themselves would come back all at once."""
REVOKED_RETRY_SECONDS = 300.0
"""A revoked agent asks again this rarely: revocation is for good, but a mistake can be mended at the controller."""
SYNC_INTERVAL_SECONDS = 5.0
"""Until the controller says otherwise."""
SYNC_INTERVAL_SECONDS_MIN = 0.1
SYNC_INTERVAL_SECONDS_MAX = 300.0
"""What the controller may ask for: a busy loop and a silence that looks like death are refused."""
SYNC_SPREAD = 0.25
"""Share of the interval by which a report comes sooner or later: a fleet that was told together is soon even again."""
REPORT_JITTER_SECONDS_MAX = 10.0
"""What the controller may ask for: less than the silence after which a stream is given up."""
SYNC_SILENCE_INTERVALS = 3
"""A stream on which nothing was heard for so many intervals is given up..."""
SYNC_SILENCE_SECONDS_MIN = 20.0
"""...but never sooner than this: a busy controller is not a dead one."""
REFUSED_ATTEMPTS_MAX = 5
"""Tries of a download that the controller refuses: a change of assignment under way settles within them."""
LOCATE_AFTER_FAILURES = 2
"""Connections that must fail in a row before the agent asks, after each, where the listeners are now."""
HOST_FACTS_SECONDS = 300.0
"""How often host and devices are looked at again: free disk moves, devices come and go with drivers."""
RPC_SECONDS_MAX = 30.0
"""Deadline of a unary call with a small answer."""
UPLOAD_SECONDS_MAX = 120.0
"""Deadline of a batch or sample: 9 MiB over 1 Mbit/s."""
READ_IDLE_SECONDS_MAX = 60.0
"""A download that brings no byte for this long is begun again from where it stopped."""
READY_SECONDS_MAX = 10.0
"""How long a start waits for last-known-good before it says that it is ready."""
STOP_SECONDS_MAX = 5.0
"""How long a graceful stop tries to deliver what is spooled; what is left waits on disk."""

# --- crashes ---
LOAD_CRASHES_MAX = 2
"""Processes that may end while they load one version before it counts as failed: a power cut in the middle of a load
is no fault of the version's, two in a row hardly happen."""
TRIAL_SECONDS = 60.0
"""How long a version must serve before its predecessor's bytes may go: real images come within seconds."""
TRIAL_CRASHES_MAX = 3
"""Processes in a row that may end within that time before the predecessor serves again: one more than of a load, since
it is a longer time in which someone may pull a plug."""

# --- disk ---
DISK_RESERVE_BYTES = 256 << 20
"""Free bytes that a download leaves on the file system: the spool and the box's own logs need them."""
DOWNLOAD_QUEUE_CHUNKS = 16
"""Chunks that wait to be hashed and written: 16 MiB, enough to hide a slow write."""
ARTIFACT_FILES_MAX = 4096
"""Files of one artifact; a SavedModel has tens."""
SPOOL_BYTES_MAX = 1 << 30
"""Bound of the result log, and again of the sample spool: about 5 million results, two days at 30 a second."""
SPOOL_OVERRUN_BYTES_MAX = 16 << 20
"""What may arrive above the bound before the next look makes room; beyond it results are counted, not kept."""
SEGMENT_BYTES_MAX = 1 << 20
"""Size at which a segment is sealed: some 6,000 results, far under the message bound."""
SEGMENT_AGE_SECONDS = 2.0
"""Age at which a segment is sealed: how stale metrics at the controller are."""
SEGMENT_AGE_OFFLINE_SECONDS = 60.0
"""The same once batches pile up: fewer files, and nobody reads them meanwhile."""
DELIVERY_INTERVAL_SECONDS = 0.5
"""How often the spools are looked at while all goes well."""
SEGMENT_BACKLOG_MANY = 16
"""Batches that wait from which on they are said to pile up."""
RECORD_BYTES_MAX = 1 << 20
"""A longer record in a segment is taken for damage."""
MEMORY_BATCHES_MAX = 4
"""Batches of metrics that wait in memory while the disk takes nothing."""
BATCH_NUMBERS_RESERVED = 4096
"""Batch numbers reserved by one durable write, so that neither sealing nor a full disk asks for another."""
BATCH_DISTANCE_BITS = 32
"""Each start numbers its batches so far, at most and at random, above those its folder knows of: what two copies of a
folder use in a day, 43,000 numbers each, meets once in 50,000 times."""
BATCH_NUMBER_JUMPED_MAX = (1 << 63) - (1 << 40)
"""Above this numbers only count on: they are signed 64 bits on the wire. Some 4 billion starts."""

# --- samples ---
SAMPLE_BYTES_MAX = 8 << 20
"""Content of one sample, as the controller takes it."""
SAMPLE_QUEUE_MAX = 64
SAMPLE_QUEUE_BYTES_MAX = 64 << 20
"""Inputs that wait to be encoded, by number and bytes; what does not fit is not sampled."""
SAMPLES_REMEMBERED_MAX = 512
"""Samples of a slot against which the next is held as a near duplicate: 30 us of the samples' thread."""
SAMPLE_QUOTA_CLOSED_SECONDS = 30.0
"""How long a label's quota that was full is not looked at again: until then its results cost a look-up."""
SAMPLE_QUOTAS_CLOSED_MAX = 4096
"""Labels of all slots that are known to be full; beyond they are all looked at again."""
INPUTS_WATCHED_PER_SECOND = 25
"""Inputs of a slot whose statistics are computed on the serving path, at 50 us each in a busy loop and 200 us with cold
caches: half a percent of one core."""
INPUTS_FLUSH_SECONDS = 1.0
"""How often their counts go to disk, half the age at which a segment is sealed."""
BASELINE_INPUTS = 200
"""Inputs that say what is normal for a version: with seven statistics fewer make every later one look odd."""
BASELINES_MAX = 64
"""Slots and versions whose baseline is remembered, the oldest go: some for each slot of a line server."""

# --- evidence ---
CONFIDENCE_BINS = 20
LATENCY_RELATIVE_ACCURACY = 0.01
LABELS_COUNTED_MAX = 64
"""As the wire contract says."""

# --- candidates ---
CANDIDATE_RETRY_FIRST_SECONDS = 30.0
CANDIDATE_RETRY_SECONDS_MAX = 1800.0
"""Waits before a version to prefetch is tried again that could not be prepared: each try compiles for minutes on a box
that has a line to serve, and a full disk is emptied by people."""
SHADOW_QUEUE_MAX = 2
"""Inputs that wait for the candidate: one under way and one to go on with; any more would be stale by their turn."""
SHADOW_REST_SECONDS = 0.005
"""Quiet on the serving path before the candidate is given an input: the answer is on its way to the application."""
SHADOW_LOOK_SECONDS = 1.0
"""How often a run that finds no quiet looks whether it should stop."""
SHADOW_LATENCY_WINDOW = 300
"""The last inferences of the serving version whose 99th percentile is held against a run's bound; a run that stops has
seen four of them above it."""
SHADOW_NICENESS = 19
"""Of the thread that runs a candidate."""
SHADOW_END_SECONDS_MAX = 30.0
"""How long the end of a run waits for the candidate's inference under way."""

# --- identity ---
RENEW_AT_LIFETIME_SHARE = 2 / 3
"""Share of a certificate's life after which it is renewed: a third is left for a controller that is away."""
RENEW_JITTER_SHARE = 0.1
"""Renewals of a fleet that enrolled in one hour are spread over this share of the lifetime."""
RENEW_RETRY_LIFETIME_SHARE = 1 / 1000
"""Longest wait between tries to renew, as a share of the lifetime: 43 minutes of 30 days, 300 tries before the end."""
AGENT_LABELS_MAX = 64
"""Labels of one agent; more are a mistake."""

# --- serving ---
INFERENCE_MESSAGE_BYTES_MAX = 64 << 20
"""Largest inference request or answer: ten 1080p images as uint8; a station sends one or a few."""
INFERENCE_WORKERS = 96
"""Threads that answer inferences of one transport; one that waits for its turn costs no CPU, and they are made as calls
come. Above INFERENCE_PLACES, so that what is over its share is refused at once and whether a model is ready is told."""
INFERENCE_PLACES = 80
"""Requests that run or wait for their turn, of all applications: 40 of one alone, the device's pool over and over."""
SWAP_WAIT_SECONDS_MAX = 300.0
"""Of a swap for the next lot, as the controller bounds it too."""
REPLACED_VERSION_SECONDS_MAX = 30.0
"""How long a version that was replaced still answers requests that name it: what was under way and its retries, while
both versions are in memory. An application that names one for good must not keep it there for ever."""
LOTS_REMEMBERED_MAX = 256
"""Lots that a version has begun: a few for each camera of a line server."""
INFERENCE_CALLS_MAX = 256
"""Calls of one transport under way or waiting for a thread; the next is refused at once instead of waiting long."""
INFERENCE_WAIT_SECONDS_MAX = 5.0
"""A request that found no free InferRequest for so long is refused: the line has moved on."""
BATCH_ITEMS_MAX = 1024
"""Items of one request; each becomes a result record."""
IDENTIFIER_CHARS_MAX = 256
"""Length of a part id or request id: they are stored with every result."""
SHARED_REGIONS_MAX = 256
"""Regions of shared memory at a time, each an open file: a few for each camera application of a station."""
SHARED_REGION_BYTES_MAX = 1 << 30
"""Bytes of one region: ten 4k images as float32."""
SERVING_STOP_SECONDS_MAX = 5.0
"""How long a stop waits for inferences under way."""
TALLIES_MAX = 64
"""Slots, versions and devices that metrics count apart, unless more serve at once: each is some thirty time series."""

# --- runtime ---
INFER_REQUESTS_MAX = 32
"""InferRequests of one model; each holds its own activations."""
INVENTORY_SECONDS_MAX = 60.0
"""Enumeration with a cold GPU driver takes seconds; a hung one never ends."""
PREPARE_SECONDS_MAX = 300.0
"""Compile, first inference and measurement on one device; NPU compilers take minutes."""
MEASURE_SECONDS = 0.5
"""Length of each of the two short measurements, latency and throughput."""
MEASURE_INFERENCES_MAX = 2000
"""Inferences of one measurement: a tiny model is known well enough by then."""
FALLBACK_WAIT_SECONDS_MAX = 5.0
"""How long a request that a lost device failed on waits for the successor, which loads from the warm cache in one."""
LOST_CHECKS = 2
"""Times that the example must fail before a device counts as lost: once may be a hiccup of its driver."""
LOST_AFTER_FAILURES = 3
"""Failures in a row before a device counts as lost under a version that takes no example."""
HANG_SECONDS_MIN = 2.0
"""An inference that takes as long hangs: long for a box under load, and short enough that requests that wait for their
turn meanwhile (INFERENCE_WAIT_SECONDS_MAX) still get to the successor."""
HANG_LATENCY_FACTOR = 100
"""...but it may take so many times the measured 99th percentile for each item of its batch."""
HANG_FIRST_SECONDS_MIN = 30.0
"""The same for the first inference of a shape, for which a GPU compiles, or where no latency is known."""
HANG_LOOKS = 10
"""Looks within that time, none of which counts for more than its share: a process that was stopped is no hang."""
HANG_CHECK_SECONDS_MIN = 0.5
"""Within it the example must be answered when an inference hangs, or the device counts as lost."""
FAMILIAR_SHAPES_MAX = 256
"""Shapes of inputs that a model is known to have answered; others are taken for new each time."""
MEASURED_CONFIGURATIONS_MAX = 16
"""Configurations of one version that are tried: four devices with two precisions and their streams."""
MEASURED_SECONDS_MAX = 600.0
"""After so long no further configuration is begun: two NPU compilations, or a hundred tries on a CPU."""
INVENTORY_AGE_SECONDS_MAX = 20.0
"""A look at the devices is good for so long: a version's preparation asks twice, and the sync loop beside it."""
GOLDEN_BYTES_MAX = 64 << 20
"""Golden inputs of a version, and again its outputs, unpacked: a hundred images of 640 x 320 as uint8."""
COMPILED_BYTES_MAX = 4 << 30
"""Compiled models on disk; above it those go that were loaded or compiled longest ago."""
CHILD_ERRORS_BYTES_MAX = 16 << 10
"""Of what a child writes on stderr the end is kept: its last line tells how it died."""
CHILD_MEMORY_SHARE = 0.75
"""Share of the box's memory that a child may hold as private data: the line's own programs need the rest."""
CHILD_MEMORY_BYTES_MIN = 2 << 30
"""...but at least this: compilers need it even on a small box."""
CHILD_OUTPUT_BYTES_MAX = 1 << 20
"""Longest answer of a child: an inventory is some 10 kB a device."""
CHILD_NICENESS = 10
"""Children yield to the inferences of the line."""
DYNAMIC_DIMENSION_MEASURED = 224
"""Size that a dynamic dimension other than the batch gets in a measurement: divisible by every usual stride."""
ERROR_CHARS_MAX = 500
"""Length of a device's error in reports; OpenVINO's own go on for pages."""

# --- bench ---
BENCH_ROUNDS = 5
"""Of each path, in turn: the median of fewer is easily a disturbance."""
BENCH_SECONDS_MIN = 0.5
BENCH_SECONDS_MAX = 600.0
"""For each path: a device that is taken from its line for longer is a mistake."""
BENCH_IN_FLIGHT_MAX = 64
"""More requests at once than workers only wait."""

# --- doctor ---
DOCTOR_MEMORY_BYTES_MIN = 512 << 20
"""Available memory below which hardly a model compiles."""
DOCTOR_DISK_BYTES_MIN = 2 << 30
"""Free disk for two large versions beside the reserve."""
DOCTOR_SHARED_MEMORY_BYTES_MIN = 128 << 20
"""Ten 1080p images for each of two applications; containers begin with 64 MiB in all."""
DOCTOR_OPEN_FILES_MIN = 1024
"""Two hundred connections, regions of shared memory, models and logs."""
DOCTOR_SPOOL_SHARE = 0.8
"""Fill of a spool from which on somebody should look: a day is left of five."""
DOCTOR_LIFETIME_SHARE = 0.9
"""Of a certificate's life: renewal has failed for a quarter of it by then."""
DOCTOR_CLOCK_SECONDS_MAX = 60.0
"""Times of results that are further off mislead whoever looks for a part."""
DOCTOR_CLOCK_SECONDS_TOLERATED = 5.0
"""Within what a box without time synchronisation drifts in a few days."""
DOCTOR_REACH_SECONDS_MAX = 5.0
"""For each of looking up a name, connecting and shaking hands."""
DOCTOR_OPENVINO_SECONDS_MAX = 60.0
"""For importing it on a cold disk."""

# --- channels ---
KEEPALIVE_SECONDS = 30.0
"""Pings of a connection that carries nothing; the controller sends away whoever pings more often than each 5 s."""
KEEPALIVE_TIMEOUT_SECONDS = 20.0
"""A ping that is not answered for so long ends the connection."""
LIVE_STATUS_SECONDS_MAX = 5.0
"""How long a command waits for the agent that runs on the folder to say how it is."""
SLOTS_MAX = 256
"""Slots of one agent; the controller never sends more."""
RECONNECT_GRACE_SECONDS = 2.0
"""How long calls on a channel that is left may go on; afterwards they end and are begun again on the new one."""

# --- results in columns ---------------------------------------------------------------------------

COLUMNS_RESULTS_MIN = 32
"""Below it the names of the columns take more bytes than they save."""
RESULT_FILES_MAX = 8
"""What the controller takes of a batch: a day each, and a batch is seconds or hours long."""
UPLOAD_FILE_BYTES_MIN = 65_536
"""Smaller files ride with the report: asking for leave and another connection would cost more."""
UPLOAD_REST_BATCHES = 50
"""Batches without a try after the store was out of reach: some minutes, so that a wall is not run against all day."""
