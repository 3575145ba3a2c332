"""Serve a web page on which a saved network can be tried."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from melanoma_lab.config.arm import Arm
from melanoma_lab.config.schema import Config
from melanoma_lab.core.console import console, show_note, show_progress
from melanoma_lab.core.errors import UserError
from melanoma_lab.core.files import get_cache_folder
from melanoma_lab.inference import prediction_messages
from melanoma_lab.inference.demo.server import (
    bind_socket,
    check_demo_installed,
    format_address,
    is_loopback,
    serve,
)
from melanoma_lab.inference.model_source import find_model
from melanoma_lab.training.hardware import choose_threads


def run(config: Config, _arm: Arm) -> None:
    """Serve a page on which a trained network can be tried, until interrupted.

    Raises:
        UserError: the extra is not installed, the address is in use, or the model cannot be used.
        KeyboardInterrupt: the user stopped the server.
    """
    check_demo_installed()
    with (
        bind_socket(config.demo.host, config.demo.port) as bound,
        tempfile.TemporaryDirectory(prefix="melanoma_lab-") as scratch,
    ):
        source = find_model(config.model, config.tracking, Path(scratch))
        app = _build_app(config, source)
        console.print(f"\nOpen [bold]{format_address(bound)}[/] in a browser. Ctrl-C ends it.")
        if not is_loopback(config.demo.host):
            console.print(
                f"demo.host={config.demo.host}: everybody who can reach this machine over the "
                "network can open the page; there is no password and no encryption.",
                style="bold yellow",
                markup=False,
            )
        prediction_messages.show_notice()
        serve(app, bound, max_megabytes=config.demo.max_megabytes)


def _build_app(config: Config, source: Any) -> Any:
    """Load the model and its training images, and build the web application."""
    from melanoma_lab.inference.predictor import load_predictor

    threads = choose_threads(config.training.threads)
    model = load_predictor(source, threads=threads, seed=config.seed)
    prediction_messages.show_source(source, model.card)
    from melanoma_lab.inference.demo import messages, web_app
    from melanoma_lab.inference.demo.image_answer import DemoService
    from melanoma_lab.inference.demo.training_images import load_reference_set
    from melanoma_lab.models.grad_cam import GradCam

    with show_progress("training images") as report:
        reference = load_reference_set(
            model,
            tracked=config.tracking,
            root=config.dataset.root,
            count=config.demo.neighbours,
            cache=get_cache_folder(config.cache),
            threads=threads,
            progress=report,
        )
    if reference.why_none:
        show_note(f"  No similar images: {reference.why_none}.")
    try:
        explain: Any = GradCam(model.network)
    except UserError as error:
        explain = str(error)
    demo = DemoService(model, reference, explain)
    about = web_app.ModelIntroduction(
        messages.describe_model(source, model.card, model.size),
        messages.list_model_limits(source, model.card),
        config.demo.max_megabytes,
    )
    return web_app.create_app(demo.look_at, about, open_to_others=not is_loopback(config.demo.host))
