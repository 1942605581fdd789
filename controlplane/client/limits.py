"""Every bound of the client, each with its reason."""

CALL_SECONDS = 30.0
"""Deadline of one ordinary call: the controller answers from its database, so longer means that it is stuck."""
PUBLISH_SECONDS = 600.0
"""Deadline of PublishModelVersion: a child process reads the model with OpenVINO, minutes for the largest."""
WRITE_SECONDS = 900.0
"""Deadline of one upload stream; a longer upload goes on with the next stream where this one stopped."""
CONTENT_SECONDS = 120.0
"""Deadline of reading one sample's content, at most 8 MiB."""
QUERY_SECONDS = 150.0
"""Deadline of a question over results: the controller gives one a minute, after at most one that was before it."""
WATCH_SECONDS = 3600.0
"""Deadline of one watch stream; it is opened again, so that a half-open connection is noticed in the end."""
TRAINING_LOOK_SECONDS = 1.0
"""How often a run is looked at that somebody waits for: its trainer takes minutes."""
PLAN_SECONDS = 120.0
"""Deadline of a plan: the controller reads the whole inventory, 10,000 agents at most."""
REHEARSE_SECONDS = 3600.0
"""Deadline of a rehearsal: hundreds of plays of a large fleet take minutes."""

CALL_RETRY_SECONDS = 5.0
"""How long an ordinary call is repeated: over a controller's restart, yet soon enough for a person who waits."""
TRANSFER_RETRY_SECONDS = 120.0
"""How long an upload or a watch goes on without any progress: a machine's restart."""
RETRY_FIRST_SECONDS = 0.1
RETRY_CAP_SECONDS = 5.0
"""Waits grow from the first to the cap, each drawn from zero up, so that many clients do not come back at once."""

CONNECT_SECONDS_MAX = 5
"""A connection that takes longer than this to come up counts as broken."""

CHUNK_BYTES = 1 << 20
"""Unit of transfer and of chunk digests: the measured optimum of streaming bytes over gRPC."""
MESSAGE_BYTES_MAX = 64 << 20
"""Largest answer accepted: a page of 1,000 resources, and room to grow."""
PAGE_SIZE = 500
"""Items asked for at once: few round trips, and a page stays a few megabytes."""
ARTIFACT_FILES_MAX = 1000
"""Files of one version: the largest SavedModels have some dozens; more is a wrong folder."""
SAMPLE_BYTES_MAX = 8 << 20
"""Largest content of a sample; more than this is a broken controller."""
CONFIG_BYTES_MAX = 1 << 20
"""An operator.toml is a few kilobytes; more is the wrong file."""
EXTERNAL_NAME_BYTES_MAX = 127
"""Longest name of an ONNX external data file that is looked for: its length is one byte up to this."""
GOLDEN_BYTES_MAX = 64 << 20
"""Golden inputs of a version, and again its outputs, unpacked, as agents take them: a hundred images of 640 x 320."""
MODEL_INFO_VALUE_BYTES_MAX = 64 << 10
"""Longest value of a key of model_info: what the controller keeps of one; a thousand labels take 10 kB."""
LABEL_FILE_BYTES_MAX = 256 << 20
"""A file of labels of 50,000 pictures takes some tens of megabytes; more is the wrong file."""
FAULTS_SHOWN_MAX = 20
"""Of a file of labels, in words; programs find them all."""
IMPORT_BATCH_PICTURES = 250
IMPORT_BATCH_BYTES = 8 << 20
"""Pictures of one message of an import: below the bound of a message, and a second's work."""
IMPORT_SECONDS = 120.0
"""Deadline of one message of an import: 250 pictures are decoded and made durable."""
FREEZE_SECONDS = 600.0
"""Deadline of a freeze: pictures that nobody has looked at yet are decoded, minutes for tens of thousands."""
SHEET_SECONDS = 300.0
SHEET_BYTES_MAX = 256 << 20
"""A contact sheet is a few megabytes; more is a broken controller."""
