"""The web application: the HTTP API under `/api/v1`, and the page."""

from __future__ import annotations

import logging
from importlib import resources
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

import meddift
from meddift.errors import MeddiftError, MissingFileError
from meddift.viewer import api, api_follow_up, api_points, api_store
from meddift.viewer.api import PreparingError
from meddift.viewer.pairs import UnknownIdError
from meddift.viewer.session import Session
from meddift.viewer.work import SupersededError, Work

_LOGGER = logging.getLogger(__name__)

#: Suffix of a file of the page -> content type; files with other suffixes are not served.
_KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}


def make_app(session: Session) -> FastAPI:
    """Create the application of a session. It has no access control; wrap it in `Guard`.

    Args:
        session: The session whose scans and points it serves.
    """
    # The usual documentation pages load scripts and fonts from elsewhere, so there are none.
    app = FastAPI(
        title="meddift viewer",
        version=meddift.__version__,
        summary="Points of one scan found in another. Positions are world RAS mm both ways.",
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/v1/openapi.json",
    )
    app.state.session = session
    app.state.work = Work()
    for part in (api, api_points, api_follow_up, api_store):
        app.include_router(part.router, prefix="/api/v1")
    _say_errors(app, session)
    _hand_out_page(app)
    return app


def _say_errors(app: FastAPI, session: Session) -> None:
    """Return all errors in one JSON form, without paths."""

    def told(status: int, code: str, message: str, job: Any = None) -> JSONResponse:
        content: dict[str, Any] = {"error": {"code": code, "message": session.public(message)}}
        if job is not None:
            content["job"] = job
        return JSONResponse(content, status)

    @app.exception_handler(MeddiftError)
    async def ours(request: Request, error: MeddiftError) -> JSONResponse:
        if isinstance(error, PreparingError):
            return told(409, "preparing", str(error), error.job)
        if isinstance(error, SupersededError):
            return told(409, "superseded", str(error))
        if isinstance(error, UnknownIdError | MissingFileError):
            return told(404, "unknown", str(error))
        if isinstance(error, ValueError):
            return told(400, "invalid", str(error))
        return told(409, "failed", str(error))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first.get("loc", ()))
        return told(422, "invalid", f"{where}: {first.get('msg', 'not as it should be')}")

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        answer = told(error.status_code, "refused", str(error.detail))
        answer.headers.update(error.headers or {})
        return answer

    @app.exception_handler(Exception)
    async def internal(request: Request, error: Exception) -> JSONResponse:
        _LOGGER.error("internal error, please report it: %s", type(error).__name__, exc_info=error)
        return told(500, "failed", f"internal error, please report it: {type(error).__name__}")


def _hand_out_page(app: FastAPI) -> None:
    """Serve the files of the page from memory, so that no request accesses the file system."""
    root = resources.files("meddift.viewer").joinpath("page")
    files: dict[str, tuple[bytes, str]] = {}
    for folder, prefix in ((root, ""), (root.joinpath("vendor"), "vendor/")):
        for item in folder.iterdir():
            kind = _KINDS.get("." + item.name.rpartition(".")[2])
            if item.is_file() and kind is not None:
                files[prefix + item.name] = item.read_bytes(), kind

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        content, kind = files["index.html"]
        return Response(content, media_type=kind)

    @app.get("/page/{name:path}", include_in_schema=False)
    async def file(name: str) -> Response:
        if name not in files:
            raise UnknownIdError("there is no such file")
        content, kind = files[name]
        return Response(content, media_type=kind)
