"""Files of a directory: `FOLDER=/srv/files cavalcade main:app --app-dir examples/files`.

    curl -O http://127.0.0.1:8000/large.iso

Starlette's FileResponse knows ranges and ETags; where the server can send a file itself, it is not read in Python at all.
"""

import os
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse
from starlette.routing import Route

FOLDER = Path(os.environ.get("FOLDER", ".")).resolve()


async def send(request: Request) -> FileResponse:
    path = (FOLDER / request.path_params["name"]).resolve()
    if not path.is_relative_to(FOLDER) or not path.is_file():
        raise HTTPException(404)
    return FileResponse(path)


app = Starlette(routes=[Route("/{name:path}", send)])
