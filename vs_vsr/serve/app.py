"""The routes: what can be asked of the server, and by what it is answered."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from importlib.resources import files
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.routing import Route

from vs_vsr.serve import footage
from vs_vsr.serve.answers import Refusal, given, json_answer, refused
from vs_vsr.serve.events import Events
from vs_vsr.serve.files import listing, picked, remove, sweep
from vs_vsr.serve.guard import Guard
from vs_vsr.serve.jobs import Job, Jobs
from vs_vsr.serve.look import look
from vs_vsr.serve.names import download_name, shown_name
from vs_vsr.serve.runner import Runner
from vs_vsr.serve.uploads import Uploads

__all__ = ["Server"]

# Digits of an offset: more are none, and Python reads long numbers slowly.
_OFFSET = re.compile(r"\d{1,15}")


class Server:
    """Everything of one folder: what runs, what is known, and who is told."""

    def __init__(self, folder: Path, *, port: int, token: str, options: Sequence[str]) -> None:
        """Find what an earlier server has left in the folder; it goes on when the app starts.

        Args:
            folder: Of all jobs and uploads.
            port: That the app is served on.
            token: Of the start address.
            options: Of `vs-vsr upscale`, for every job; `--device` comes first.
        """
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder = folder
        sweep(folder)
        self._jobs = Jobs(folder)
        self._uploads = Uploads(folder, self._jobs.ids())
        self._runner = Runner(self._jobs, options)
        self.events = Events(self._jobs.ids, self._jobs.public)
        self._jobs.told = self.events.changed
        self._device = options[options.index("--device") + 1] if "--device" in options else "auto"
        app = Starlette(
            routes=self._routes(),
            lifespan=self._running,
            exception_handlers={Refusal: refused, OSError: refused},
        )
        self.app = Guard(app, port=port, token=token)

    @contextlib.asynccontextmanager
    async def _running(self, app: Starlette) -> AsyncIterator[None]:
        runs = asyncio.create_task(self._runner.run())
        yield
        self.events.close()
        self._runner.close()
        await runs

    def _routes(self) -> list[Route]:
        def route(path: str, method: str, endpoint: object) -> Route:
            return Route(path, endpoint, methods=[method])  # type: ignore[arg-type]

        job, upload = "/api/jobs/{id}", "/api/uploads/{id}"
        return [
            route("/", "GET", _file("index.html", "text/html")),
            route("/page.css", "GET", _file("page.css", "text/css")),
            route("/page.js", "GET", _file("page.js", "text/javascript")),
            route("/api/footage", "GET", self._footage),
            route("/api/files", "GET", self._files),
            route("/api/events", "GET", self._events),
            route("/api/uploads", "GET", self._list_uploads),
            route("/api/uploads", "POST", self._begin_upload),
            route(upload, "GET", self._upload),
            route(upload, "PATCH", self._append),
            route(upload, "DELETE", self._delete_upload),
            route("/api/jobs", "GET", self._list_jobs),
            route("/api/jobs", "POST", self._new_job),
            route(job, "GET", self._job),
            route(job, "PATCH", self._change),
            route(job, "DELETE", self._delete),
            route(f"{job}/forecast", "POST", self._forecast),
            route(f"{job}/previews", "POST", self._previews),
            route(f"{job}/previews/{{number:int}}.png", "GET", self._preview),
            route(f"{job}/start", "POST", self._start),
            route(f"{job}/pause", "POST", self._pause),
            route(f"{job}/resume", "POST", self._resume),
            route(f"{job}/cancel", "POST", self._cancel),
            route(f"{job}/result", "GET", self._result),
        ]

    # ---- what there is ----

    async def _footage(self, request: Request) -> Response:
        return json_answer(await asyncio.to_thread(footage.offered, self._device))

    async def _files(self, request: Request) -> Response:
        folder = request.query_params.get("folder")
        return json_answer(await asyncio.to_thread(listing, folder))

    async def _events(self, request: Request) -> Response:
        return StreamingResponse(self.events.stream(), media_type="text/event-stream")

    # ---- uploads ----

    async def _list_uploads(self, request: Request) -> Response:
        return json_answer([upload.public() for upload in self._uploads.all()])

    async def _begin_upload(self, request: Request) -> Response:
        asked = await given(request)
        upload = self._uploads.begin(*map(asked.get, ("name", "bytes", "modified")))
        return json_answer(upload.public(), 201)

    async def _upload(self, request: Request) -> Response:
        return json_answer(self._uploads.get(request.path_params["id"]).public())

    async def _append(self, request: Request) -> Response:
        upload = self._uploads.get(request.path_params["id"])
        offset = request.headers.get("upload-offset", "")
        if not _OFFSET.fullmatch(offset):
            raise Refusal(
                400,
                f"Upload-Offset must be a number of bytes, got {offset[:20]!r}. Ask for the offset "
                "first.",
            )
        length = request.headers.get("content-length")
        await self._uploads.append(
            upload, int(offset), int(length) if length else None, request.stream()
        )
        return json_answer(upload.public())

    async def _delete_upload(self, request: Request) -> Response:
        await self._uploads.delete(request.path_params["id"])
        return json_answer({})

    # ---- jobs ----

    async def _list_jobs(self, request: Request) -> Response:
        return json_answer([job.public() for job in self._jobs.all()])

    async def _new_job(self, request: Request) -> Response:
        asked = await given(request)
        if ("upload" in asked) == ("path" in asked):
            raise Refusal(400, "A job must have either an upload or a path. Choose a file.")
        if "path" in asked:
            path = picked(asked["path"])
            folder = self._jobs.new_folder()
            try:
                job = await self._add(folder, path, shown_name(path.name), str(path))
            except BaseException:
                await asyncio.to_thread(remove, folder)
                raise
        else:
            upload = self._uploads.take(asked["upload"])
            try:
                job = await self._add(upload.folder, upload.path, upload.name, None)
            except BaseException as e:
                self._uploads.give_back(upload)
                if isinstance(e, Refusal):  # it is no video
                    await self._uploads.delete(upload.folder.name)
                raise
            self._uploads.settled(upload)
        return json_answer(job.public(), 201)

    async def _add(self, folder: Path, path: Path, name: str, source: str | None) -> Job:
        seconds = await look(path, name)
        size = path.stat().st_size
        job = Job(folder=folder, name=name, bytes=size, source=source, seconds=seconds)
        self._jobs.add(job)
        return job

    def _asked(self, request: Request) -> Job:
        return self._jobs.get(request.path_params["id"])

    async def _job(self, request: Request) -> Response:
        return json_answer(self._asked(request).public())

    async def _change(self, request: Request) -> Response:
        asked = await given(request)
        job = self._asked(request)
        footage.change(job, asked)
        self._jobs.keep(job)
        return json_answer(job.public())

    async def _delete(self, request: Request) -> Response:
        await self._runner.delete(self._asked(request))
        return json_answer({})

    async def _forecast(self, request: Request) -> Response:
        job = self._asked(request)
        self._runner.forecast(job)
        return json_answer(job.public(), 202)

    async def _previews(self, request: Request) -> Response:
        asked = await given(request)
        job = self._asked(request)
        self._runner.preview(job, asked.get("choices"), asked.get("times"))
        return json_answer(job.public(), 202)

    async def _preview(self, request: Request) -> Response:
        job, number = self._asked(request), request.path_params["number"]
        if number not in {preview.number for preview in job.previews}:
            raise Refusal(404, "This picture is not here any more. Make it again.")
        return FileResponse(job.preview_file(number), media_type="image/png")

    async def _start(self, request: Request) -> Response:
        job = self._asked(request)
        self._runner.start(job)
        return json_answer(job.public())

    async def _pause(self, request: Request) -> Response:
        job = self._asked(request)
        self._runner.pause(job)
        return json_answer(job.public())

    async def _resume(self, request: Request) -> Response:
        job = self._asked(request)
        self._runner.resume(job)
        return json_answer(job.public())

    async def _cancel(self, request: Request) -> Response:
        job = self._asked(request)
        await self._runner.cancel(job)
        return json_answer(job.public())

    async def _result(self, request: Request) -> Response:
        job = self._asked(request)
        self._jobs.check(job)
        if job.state != "done":
            raise Refusal(404, f"{job.name} must be done to be saved. Start it, and wait for it.")
        return FileResponse(
            job.result,
            media_type="application/octet-stream",
            filename=download_name(job.name, job.container),
        )


def _file(name: str, media_type: str) -> Callable[[Request], Awaitable[Response]]:
    """What answers with a file of the page."""
    content = (files("vs_vsr.serve") / "page" / name).read_bytes()

    async def answer(request: Request) -> Response:
        return Response(content, media_type=media_type)

    return answer
