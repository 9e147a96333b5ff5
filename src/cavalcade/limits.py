"""Every limit: its name, its unit, and why it has this value. What a user may change is an option in `config/options.py`
whose default stands here; the rest are constants of the design.
"""

from __future__ import annotations

KIB = 1024
MIB = 1024 * KIB

# -- the request head ------------------------------------------------------------------------------------------------
REQUEST_LINE_BYTES = 8 * KIB  # RFC 9112 section 3 asks for at least 8000; over it: TargetTooLong -> 414
PROXY_HEADER_BYTES = 4 * KIB  # a PROXY protocol header, TLVs included; HAProxy sends 536 at most, and certificates need more
FORWARDED_KEPT_BYTES = 128  # what a request says of its client is remembered, read, if it is no longer than this ...
FORWARDED_KEPT = 2048  # ... for so many; at about 700 bytes each that is 1.4 MiB
ROUTED_KEPT = 512  # connections whose WSGI environ is kept ready, where there are several apps; at about 2 KiB each that is 1 MiB
FIELD_KEPT_BYTES = 256  # a field line of a request is remembered, read, if it is no longer than this (User-Agent has 130) ...
FIELDS_KEPT = 1024  # ... for so many; at about 400 bytes each that is 400 KiB, and less than 1 MiB in the worst case
BLOCK_KEPT_BYTES = 2 * KIB  # all fields of a request, kept by a connection whose requests have the same again and again
HEADER_FIELDS = 100  # gunicorn's limit_request_fields; over it: HeadTooLarge -> 431
HEAD_BYTES = 64 * KIB  # nginx 4 x 8 KiB, tomcat 8 KiB, node 16 KiB; over it: HeadTooLarge -> 431
LEADING_EMPTY_LINES_BYTES = 64  # RFC 9112 section 2.2: some clients send a stray CRLF before the request line

# -- bodies and buffers ------------------------------------------------------------------------------------------------
LENGTH_MAX = 2**53 - 1  # no body is longer; everything near 2^63 or 2^64 is an attack on somebody's integers
CHUNK_LINE_BYTES = 256  # a chunk-size line with its extensions; no client needs more
BODY_BUFFER_BYTES = 64 * KIB  # unread request body held for an app before the socket is paused
PIPELINED_PER_TURN = 16  # requests of one connection that are begun before other connections have their turn
PIPELINE_BUFFER_BYTES = 64 * KIB  # bytes of later requests held behind a running one before the socket is paused
WRITE_TURN_BYTES = 2 * MIB  # that an app may send while its client takes all at once, before others have their turn ...
WRITE_TURN_PIECE_BYTES = 1024  # ... each piece costs as much as this many bytes more
WRITE_HIGH_BYTES = 64 * KIB  # response bytes not yet taken by the kernel before `send` waits
WRITE_HOLD_BYTES = 16 * KIB  # held until the end of the loop's turn; beyond it the kernel gets it at once, as it saves nothing more
WRITE_PIECES = 64  # given to the kernel in one call; Linux takes 1024
READ_BYTES = 16 * KIB  # read at a time, more than a request head has ...
READ_MAX_BYTES = 64 * KIB  # ... from a client that fills it again and again
JOIN_BYTES = 64 * KIB  # head and body up to this are joined into one write; beyond it the copy costs more
TLS_UNASKED_BYTES = 256 * KIB  # what TLS itself sends in the life of a connection, such as new keys: beyond it, closed
WSGI_BODY_BYTES = 256 * KIB  # of a request body that are here before a thread is taken for it; with threads=0, that stay in memory
WSGI_SPOOL_BYTES = 1024 * MIB  # longest body kept in a file with threads=0, where limit_request_body says nothing: waitress's limit
WSGI_RESPONSE_BYTES = 1 * MIB  # of a streamed response that the client has not taken, before the app's thread waits for it
WSGI_TURN_S = 0.005  # with threads=0 a response that is made piece by piece lets others have their turn after this long
FILE_JOIN_BYTES = 8 * KIB  # of a file in the clear, up to which it is read to be joined with its head; beyond it sendfile costs less
FILE_READ_BYTES = 64 * KIB  # read at a time of a file that the kernel cannot send by itself (TLS, HTTP/2)
STATIC_THREADS = 4  # that look at the disk for `static`; each waits for one file at a time
STATIC_MAX_AGE_S = 60.0  # WhiteNoise has the same: a page with many files asks once, a new version is seen soon
FILE_TURN_BYTES = 1 * MIB  # that the kernel is asked to send of a file before others have their turn
UNREAD_BODY_BYTES = 256 * KIB  # body bytes that are read and thrown away to keep a connection; beyond it: closed
LINGER_S = 2.0  # after our last byte, how long the peer's bytes are read so that it sees the answer, not a reset

# -- HTTP/2 ----------------------------------------------------------------------------------------------------------------
H2_STREAMS = 100  # in flight on one connection: the least that RFC 9113 section 6.5.2 recommends; over it: REFUSED_STREAM
H2_FRAME_BYTES = 16 * KIB  # of one frame: the least that must be taken, so that no frame holds others up for long
H2_STREAM_WINDOW_BYTES = 128 * KIB  # request body of one stream on its way: twice BODY_BUFFER_BYTES, so that it never closes below that
H2_STREAM_WINDOW_MAX_BYTES = 1 * MIB  # ... of one whose app reads as fast as it comes, because a window is all there is in one round trip
H2_WINDOW_EXTRA_BYTES = 4 * MIB  # ... what such streams of one connection have beyond the usual window, together
H2_CONNECTION_WINDOW_BYTES = 8 * MIB  # given back on arrival: what is held is bounded stream by stream, and a slow one stops nobody else
H2_OUTPUT_BYTES = 64 * KIB  # frames made before the transport takes them; what comes later waits as it is, uncopied
H2_RESUME_BYTES = 16 * KIB  # of WRITE_HIGH_BYTES that wait in one stream: one frame, below which `send` goes on
H2_HELD_OUTPUT_BYTES = 256 * KIB  # not taken by the peer, after which nothing more of it is read: its requests all have answers
H2_HEAD_FRAMES = 32  # HEADERS and CONTINUATION of one head (CVE-2024-27316, the CONTINUATION flood)
H2_HEAD_FACTOR = 4  # a head up to this many times its limit is read and answered 431; beyond it (an HPACK bomb) the connection ends
H2_CONTROL_FRAMES = 1000  # frames without use (SETTINGS, PING, PRIORITY, empty ones) at once: CVE-2019-9512, -9513, -9515, -9518 ...
H2_CONTROL_FRAMES_PER_S = 100.0  # ... and for ever; requests and responses earn more
H2_CONTROL_PER_REQUEST = 8.0
H2_CONTROL_PER_DATA = 2.0  # window updates that a peer may send for one DATA frame of ours: its own, and the connection's
H2_RESETS = 200  # requests that are cancelled, or provoke a reset, at once (CVE-2023-44487 rapid reset, CVE-2025-8671 MadeYouReset) ...
H2_RESETS_PER_S = 20.0  # ... and for ever: a page that is left cancels what it had asked for, a flood does nothing else
H2_RESETS_PER_REQUEST = 0.5
H2_LATELY_RESET = 256  # streams that we have reset and whose peer may not know it yet
H2_SETTLE_S = 1.0  # between the two GOAWAYs of a drain, where the peer does not answer our PING

# -- WebSocket ---------------------------------------------------------------------------------------------------------
WS_MESSAGE_BYTES = 16 * MIB  # uvicorn, hypercorn and gunicorn have the same; over it, inflated: close code 1009
WS_QUEUE = 32  # messages read ahead for an app before the socket is paused ...
WS_QUEUE_BYTES = 256 * KIB  # ... or so many bytes of them: one compressed read can hold many large ones
WS_WHOLE_FRAME_BYTES = 16 * KIB  # an unusual frame up to this is collected here; a longer one goes to the library in pieces
WS_DEFLATE_MIN_BYTES = 256  # a shorter message is sent as it is: without a history it hardly gets smaller
WS_PING_INTERVAL_S = 20.0  # without a byte from the client: below the 30 to 60 s after which proxies forget a connection
WS_PING_TIMEOUT_S = 20.0
WS_ACCEPT_TIMEOUT_S = 30.0  # a client would wait for ever
WS_CLOSE_TIMEOUT_S = 5.0  # for the client's answer to our Close

# -- deadlines, in seconds ---------------------------------------------------------------------------------------------
HEAD_TIMEOUT_S = 10.0  # from the first byte (or from accept) to the whole head
KEEP_ALIVE_S = 75.0  # above the 60 s of common load balancers, so that they close first
BODY_TIMEOUT_S = 30.0  # without progress
WRITE_TIMEOUT_S = 60.0  # without progress
SWEEP_S = 0.5  # how often deadlines are looked at; they are never early, and late by twice this at most
GRACEFUL_TIMEOUT_S = 30.0  # from the order to drain to the end, lifespan shutdown included
SHUTDOWN_RESERVE = 0.25  # the share of the graceful timeout that is kept for lifespan.shutdown ...
SHUTDOWN_RESERVE_MAX_S = 5.0  # ... at most this much; it always runs
INTERRUPT_GRACE_S = 3.0  # the whole grace after Ctrl-C
BOOT_TIMEOUT_S = 60.0  # import plus lifespan startup

# -- supervision ---------------------------------------------------------------------------------------------------------
HEARTBEAT_S = 0.008  # how often a worker's loop stamps its row on the board while it has connections
STALE_HEARTBEAT_S = 0.02  # a loop that was silent for longer is blocked: nobody waits for it to accept
LOOK_S = 0.1  # how often a worker without connections beats, and one with some looks at its threads and limits
BUSY_S = 1.0  # over which it tells how late its loop was and how busy
LAG_NOISE_S = 0.003  # a loop that turns so much too late does not stand still: uvloop's timers have milliseconds
RATE_S = 1.0  # how often the supervisor notes what the workers have counted: requests a second are those since the last note ...
RECENT_S = 10.0  # ... and percentiles those of so long
APP_SERIES = 20000  # of the app's own metrics that are kept of workers that are gone: 2 MiB at 100 bytes each
APP_SWEEP_S = 10.0  # how often what dead workers have left of them is added up
STATSD_RETRY_S = 10.0  # before an address that cannot be reached is tried again
STATSD_PACKET_BYTES = 1432  # of metrics in one datagram: fits into a frame of an Ethernet, as StatsD's documentation advises
STALL_WARN_S = 0.25  # a loop that was blocked for longer is reported: a request that waits this long is felt by a person
STALL_KILL_S = 30.0  # a loop that is blocked for so long serves nobody any more: gunicorn's timeout
STALL_LOOK_S = 0.05  # how often the supervisor looks at the heartbeats
STALL_OWN_S = 0.15  # the supervisor itself turned so much too late: the machine stands still, or is short of CPUs
POOL_OVER_S = 2.0  # a thread pool that had no thread for a newcomer has enough again when everybody has got one at once for this long
STEP_BACK_S = 0.001  # a worker steps back from accepting this long (uvloop makes 0 of less) for each connection above the least ...
STEP_BACK_MAX_S = 0.004  # ... at most this long ...
STEP_BACK_TIMES = 8  # ... and at most so often in a row
EXHAUSTED_PAUSE_S = 0.5  # out of descriptors and nobody idle: look again after this ...
EXHAUSTED_SHED_PAUSE_S = 0.02  # ... sooner when idle connections were closed ...
EXHAUSTED_SHED = 16  # ... which are at most so many at a time, and never more than half of them
EXHAUSTED_OVER_S = 2.0  # without another failure for this long it is over
HAND_OVER_RETRY_S = 0.002  # the queue was full, or the last response not yet with the kernel
DRAIN_NOTICE = 0.3  # the share of a drain after which responses still streaming are told by http.disconnect
LAST_CALL_S = 1.0  # at a stop an idle connection is still answered for this long, because its next request may be on its way ...
LAST_CALL = 0.2  # ... at most this share of the grace
UPGRADE_START_S = 30.0  # a new supervisor has this, and the boot timeout for its nursery and for its workers, until all are ready
BACKOFF_FIRST_S = 1.0  # 1, 2, 4 ... between restarts of a worker that keeps dying
BACKOFF_MAX_S = 30.0
HEALTHY_AFTER_S = 10.0  # a worker that lived this long starts the back-off anew
MEMORY_SAMPLE_S = 1.0  # how often a worker looks at its own memory, where max_memory is set
SHARED_SAMPLE_S = 10.0  # how often the supervisor looks at how much of its memory a worker shares, one after the other
MEMORY_SAMPLES = 5  # so many in a row over max_memory, and it asks to be replaced: a spike is no leak
BOOT_STACK_S = 0.5  # so long before boot_timeout a worker that still boots is asked where it is
KILL_AFTER_S = 2.0  # beyond the graceful timeout, before a worker that will not go is killed
BOOT_STOP_S = 1.0  # a worker that is not ready yet has nothing to finish; after this it is killed
CERTIFICATE_LOOK_S = 1.0  # how often the certificate files are looked at
CERTIFICATE_RETRY_S = 5.0  # a worker that could not read what the supervisor could tries again after this
CERTIFICATE_WARN_S = 86400.0  # how often it is said that a certificate expires
SIGNAL_ECHO_S = 0.2  # the same signal again within this is one wish: a shell or a wrapper passed Ctrl-C on as well
WATCHDOG_SILENCE_S = 1.0  # a service manager's watchdog is fed while some worker's loop turned within this
BACKLOG = 2048
WORKERS_MAX = 512
THREADS_MAX = 1024  # of one worker, for a WSGI app; each has a stack, and they share one interpreter lock
BOARD_ROWS = 2 * WORKERS_MAX  # in a reload the old and the new workers overlap

# -- admin ---------------------------------------------------------------------------------------------------------------
ADMIN_BODY_BYTES = 4 * KIB  # what is asked for stands in the target
ADMIN_HEAD_BYTES = 16 * KIB
ADMIN_CONNECTIONS = 128  # to each admin listener; beyond it they are closed at once: descriptors are for workers
ADMIN_REQUESTS = 64  # at a time ...
ADMIN_STREAMS = 16  # ... of which so many may be streams of events
ADMIN_EVENTS_S = 1.0  # how often a stream of events tells how the server is
ADMIN_KEEP_ALIVE_S = 5.0
ADMIN_WRITE_S = 10.0  # a client that takes nothing for so long is given up
INSPECT_WAIT_S = 1.0  # a worker that has not answered after this is looked at from outside: its loop is blocked
INSPECT_STACK_S = 0.5  # for the stack that a signal asks for
INSPECT_REQUESTS = 50  # that are described, the oldest ...
INSPECT_REQUESTS_MAX = 500  # ... if no other number is asked for
INSPECT_FRAMES = 60  # of one stack

# -- logs ----------------------------------------------------------------------------------------------------------------
PEER_LOG_EVERY_S = 1.0  # at most one line about bad requests in this time; what was left out is counted on the next
STALL_PLACES = 100  # places in the code that are counted as blocking a loop; the rest is counted together
ADVICE_KEPT = 2000  # lines of advice that are remembered as said, and said at all
FORWARDED_WARN_EVERY_S = 5.0  # a peer that forwards and is not trusted is named once, another one this much later at the earliest ...
FORWARDED_WARNED = 1000  # ... and no more of them than this: who scans the internet sends such headers too
PEER_LOG_BYTES = 64  # how much of a bad request is quoted
LOG_KEPT_BYTES = 1 * MIB  # lines held for a reader of stdout or stderr that is behind; beyond it the oldest are dropped and counted
LOG_PATIENCE_S = 0.1  # how long one line of the server's own log may wait for its reader; access lines never wait
JOURNAL_LINES = 1000  # of the log, kept in memory by the supervisor for `cavalcade logs` and the dashboard ...
JOURNAL_TEXT_CHARS = 2000  # ... of each so much ...
JOURNAL_TRACE_CHARS = 8000  # ... and of its traceback: 10 MB in the very worst case
RELAY_BURST = 200  # lines that a worker hands on to the supervisor at once ...
RELAY_PER_S = 50.0  # ... and for ever; what comes faster is in the log, and counted
LOG_TARGET_CHARS = 2000  # how much of a request target an access line shows
