#!/bin/sh
# What to try while `make demo` runs. $1: port, $2: file with the supervisor's pid.
cat <<TEXT

  Cavalcade demo: FastAPI, two workers       http://127.0.0.1:$1       (interactive docs: http://127.0.0.1:$1/docs)

  In another terminal:
    curl http://127.0.0.1:$1/                    two workers share one port; see which pid answers
    curl http://127.0.0.1:$1/slow                waits a second; run fifty at once, they take a second together
    curl -N http://127.0.0.1:$1/count            a stream

  Reload:    edit GREETING in examples/fastapi_demo/main.py, then   kill -HUP \$(cat $2)   and curl again
  Kill one:  kill -9 a pid that curl showed; it is replaced, the other one serves meanwhile
  Break it:  put a syntax error into main.py, kill -HUP again: the old code keeps serving, and the reason is printed here
  Stop:      Ctrl-C

TEXT
