"""The page itself, in Gradio, served to this machine alone."""

from __future__ import annotations

import os
import re
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np

from siamcal.errors import ConfigError, SiamcalError
from siamcal.extras import needed_for
from siamcal.inference import PersonReference
from siamcal.inference.many import ModelChoice
from siamcal.inference.models import RENDERED_NOTE
from siamcal.page.bars import STYLE, bars, checklist
from siamcal.page.live import LiveReader, Sitting
from siamcal.page.recording import AUTO, LIVE, PICTURE, REFERENCES, RecordingReader

__all__ = ["HOST", "page_server"]

HOST = "127.0.0.1"
SECONDS_A_LOOK = 0.2
FOLDER = "siamcal-demo-"
PROMISE = (
    "**Nothing leaves this machine.** This page is served by siamcal on this computer, to this "
    "computer alone. Pictures and videos are read here, nothing is fetched from elsewhere, and "
    "what the page kept is deleted when siamcal ends."
)
# The browser itself refuses whatever another address is asked for.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; media-src 'self' data: blob:; "
    "connect-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; "
    "form-action 'self'; base-uri 'self'; frame-ancestors 'self'"
)


@contextmanager
def page_server(choice: ModelChoice, port: int) -> Iterator[tuple[str, Callable[[], None]]]:
    """Yield the page's address, and what serves it until it is interrupted.

    Args:
        choice: The calibrator.
        port: 0: any free one.

    Raises:
        MissingDependencyError: Gradio isn't installed.
        ConfigError: The port is taken, or the calibrator can't be used.
    """
    with tempfile.TemporaryDirectory(prefix=FOLDER) as kept:
        _import_gradio(kept)
        import uvicorn

        door = _door(port)
        try:
            app = _application(choice, Path(kept))
            # Pages that stay open don't keep it from ending.
            settings = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)
            server = uvicorn.Server(settings)
            yield f"http://{HOST}:{door.getsockname()[1]}", lambda: server.run(sockets=[door])
        finally:
            door.close()


def _import_gradio(kept: str) -> None:
    """Import Gradio so that it reports nothing, and keeps what it keeps in `kept`."""
    # Read while it is imported; the folder is the owner's alone.
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}
    os.environ["GRADIO_TEMP_DIR"] = kept
    with needed_for("siamcal demo"):
        import gradio  # noqa: F401


def _door(port: int) -> socket.socket:
    door = socket.socket()
    door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        door.bind((HOST, port))
        door.listen()  # who comes before the page is ready waits
    except OSError as error:
        door.close()
        raise ConfigError(
            f"Port {port} of this machine can't be used ({error.strerror}). Name another one with "
            "--port, or 0 for any that is free."
        ) from error
    return door


def _application(choice: ModelChoice, kept: Path) -> Any:
    import fastapi
    import gradio as gr
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    app = fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    # A page of the internet that calls itself by this machine's address isn't answered.
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])

    app.add_middleware(_Policy)
    page = _page(LiveReader(choice.predictor()), RecordingReader(choice.predictor()), kept)
    return gr.mount_gradio_app(
        app,
        page,
        path="/",
        server_name=HOST,
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        css=STYLE,
        theme=gr.themes.Default(primary_hue="cyan", font="sans-serif", font_mono="monospace"),
    )


class _Policy:
    """Sends `POLICY` with every answer."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def told(message: Any) -> None:
            if message["type"] == "http.response.start":
                headers = [
                    *message.get("headers", ()),
                    (b"content-security-policy", POLICY.encode()),
                ]
                message = {**message, "headers": headers}
            await send(message)

        await self.app(scope, receive, told)


def _page(live: LiveReader, recordings: RecordingReader, kept: Path) -> Any:
    import gradio as gr

    config = live.predictor.config
    with gr.Blocks(title="siamcal", analytics_enabled=False) as page:
        gr.Markdown(f"# siamcal\n{PROMISE}" + (f"\n\n{RENDERED_NOTE}" if config.rendered else ""))
        sitting = gr.State(Sitting())
        with gr.Tab("Camera"):
            _camera_tab(live, sitting)
        with gr.Tab("Video"):
            _video_tab(recordings, sitting, kept)
    return page


def _camera_tab(live: LiveReader, sitting: Any) -> None:
    import gradio as gr

    config, raw = live.predictor.config, live.predictor.reads_raw
    with gr.Row():
        with gr.Column():
            camera = gr.Image(
                label="Camera",
                sources=["webcam"],
                streaming=True,
                type="numpy",
                buttons=[],
                elem_id="camera",
                height=340,
                webcam_options=gr.WebcamOptions(mirror=False),
            )
            checks = gr.HTML(checklist(None), elem_id="checks")
            with gr.Row():
                take = gr.Button("This is the neutral face", variant="primary", elem_id="take")
                picture = gr.UploadButton(
                    "Neutral face from a picture", type="filepath", elem_id="other"
                )
        with gr.Column():
            readings = gr.HTML(bars(config, None, raw=raw), elem_id="bars")
            said = gr.Markdown(
                "No neutral face yet: readings begin when there is one.", elem_id="said"
            )
            neutral = gr.Image(label="Neutral face", height=200, visible=False, buttons=[])

    def look(frame: np.ndarray | None, now: Sitting) -> tuple[str, str]:
        if frame is None:
            return checklist(None), bars(config, None, raw=raw)
        reading = live.read(np.ascontiguousarray(frame[..., :3]), now)
        return checklist(reading.look), bars(config, reading, raw=raw)

    def taken(person: PersonReference, now: Sitting) -> tuple[str, Any]:
        return _told(("Readings are relative to this face.", *person.warnings)), gr.update(
            value=now.neutral, visible=True
        )

    @_in_words
    def take_frame(now: Sitting) -> tuple[str, Any]:
        return taken(live.take(now), now)

    @_in_words
    def take_picture(path: str, now: Sitting) -> tuple[str, Any]:
        return taken(live.take_file(path, now), now)

    camera.stream(
        look,
        [camera, sitting],
        [checks, readings],
        stream_every=SECONDS_A_LOOK,
        concurrency_limit=1,
        show_progress="hidden",
    )
    take.click(take_frame, [sitting], [said, neutral])
    picture.upload(take_picture, [picture, sitting], [said, neutral])


def _video_tab(recordings: RecordingReader, sitting: Any, kept: Path) -> None:
    import gradio as gr

    with gr.Row():
        video = gr.File(label="Video", type="filepath", elem_id="video")
        with gr.Column():
            which = gr.Radio(list(REFERENCES), value=AUTO, label="Neutral face")
            picture = gr.File(label="Picture", type="filepath", visible=False, elem_id="picture")
            begin = gr.Button("Read", variant="primary", elem_id="read")
    said = gr.Markdown(elem_id="results")
    with gr.Row():
        overlay = gr.Video(show_label=False, elem_id="overlay", interactive=False, buttons=[])
        plot = gr.Image(show_label=False, elem_id="plot", interactive=False, buttons=[])
    files = gr.File(label="Files", file_count="multiple", elem_id="files", interactive=False)
    table = gr.Dataframe(label="Table", elem_id="table", interactive=False, max_height=400)

    @_in_words
    def read(path: str | None, kind: str, other: str | None, now: Sitting) -> tuple[Any, ...]:
        reference = {AUTO: AUTO, PICTURE: other, LIVE: now.person}[kind]
        if reference is None:
            raise ConfigError(
                "There is no neutral face yet: choose a picture of it."
                if kind == PICTURE
                else "There is no neutral face yet: take it in the tab Camera first."
            )
        folder = Path(tempfile.mkdtemp(dir=kept))
        results = recordings.read(path, reference, folder)
        names = [str(file) for file in results.files]
        return (_told(results.said), str(results.overlay), str(results.plot), names, results.table)

    which.change(lambda kind: gr.update(visible=kind == PICTURE), which, picture)
    begin.click(
        read,
        [video, which, picture, sitting],
        [said, overlay, plot, files, table],
        concurrency_limit=1,
    )


def _told(sentences: tuple[str, ...]) -> str:
    return "\n".join(f"- {_shown(sentence)}" for sentence in sentences)


def _shown(text: str) -> str:
    """A message without the folders in which Gradio keeps what was uploaded."""
    return re.sub(rf"\S*{FOLDER}\w+/(\w+/)?", "", text)


def _in_words(handler: Callable[..., Any]) -> Callable[..., Any]:
    """What is wrong is told on the page, as the command line tells it."""
    import gradio as gr

    @wraps(handler)
    def told(*given: Any) -> Any:
        try:
            return handler(*given)
        except SiamcalError as error:
            raise gr.Error(_shown(str(error)), duration=None, print_exception=False) from error

    return told
