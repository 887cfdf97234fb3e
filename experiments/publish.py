"""Publish a run on the Hugging Face Hub, with a model card: `python -m experiments.publish RUN --repo USER/NAME`.

What goes there is model.zip, config.yaml (without paths of this machine), the picture, regimes.csv, result.json, the
statistics of normalised observations, a film from RUN/play if there is one, and README.md. Play the run first
(`python -m experiments.play RUN`), and the card has its returns on frozen regimes.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import shlex
import shutil
import sys
import tempfile
import textwrap
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from experiments import errors
from experiments import folder as files
from experiments.announce import tell
from experiments.card import card
from experiments.command_line import Parser, answer
from experiments.inspect import read_config
from experiments.run_settings import RunSettings
from experiments.schema import Config

AS_THEY_ARE = (files.MODEL, files.PICTURE, files.REGIMES, files.RESULT, files.NORMALIZATION)
FILMS = {"play.mp4": "replay.mp4", "play.gif": "replay.gif"}  # the Hub shows a replay.mp4 beside the card
CARD = "README.md"
REPO = r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the process's exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    return answer(lambda: _main(words), interrupted="stopped before everything was uploaded")


def _main(words: Sequence[str]) -> int:
    parser = Parser(
        prog="python -m experiments.publish",
        allow_abbrev=False,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="the folder of a run that has ended")
    parser.add_argument("--repo", required=True, metavar="USER/NAME", help="on the Hub; made if it is not there")
    parser.add_argument("--private", action="store_true", help="a repository that only you can see, if it is made")
    parser.add_argument("--dry-run", type=Path, metavar="DIR", help="write what would be uploaded into DIR, and stop")
    flags = parser.parse_args(words)
    if not re.fullmatch(REPO, flags.repo):
        raise errors.BadInput(f"--repo must be USER/NAME of letters, digits, - _ and ., got {flags.repo!r}")
    console, config = Console(), _ended(flags.run)
    if flags.dry_run is not None:
        _make(flags.dry_run)
        tell(prepare(flags.run, config, flags.repo, flags.dry_run), console)
        upload = ["python", "-m", "experiments.publish", str(flags.run), "--repo", flags.repo]
        private = ["--private"] if flags.private else []
        lines = ["", "nothing was uploaded", "", "what to type next", f"  {shlex.join([*upload, *private])}"]
        tell([*lines[:-1], f"{lines[-1]}  # upload it"], console)
        return errors.DONE
    api = _api(flags)
    with tempfile.TemporaryDirectory() as name:
        tell(prepare(flags.run, config, flags.repo, Path(name)), console)
        seen = "only you can see it" if flags.private else "anybody can see it, unless it was private before"
        tell([f"uploading to {flags.repo} on the Hugging Face Hub: {seen}"], console)
        url = _upload(api, Path(name), flags)
    tell([f"published: {url}"], console)
    return errors.DONE


def prepare(folder: Path, config: Config, repo: str, out: Path) -> list[str]:
    """Write all that is published into `out`; what that is, a line each."""
    try:
        for name in AS_THEY_ARE:
            if (folder / name).is_file():
                shutil.copyfile(folder / name, out / name)
        film = next((name for name in FILMS if (folder / files.PLAYED / name).is_file()), None)
        if film is not None:
            shutil.copyfile(folder / files.PLAYED / film, out / FILMS[film])
        settings = _impersonal(config).as_dict()
        (out / files.CONFIG).write_text(yaml.safe_dump(settings, sort_keys=False), "utf-8")
        (out / CARD).write_text(card(folder, config, repo, None if film is None else FILMS[film]), "utf-8")
    except OSError as error:
        raise errors.StorageFailure(f"{out} cannot be written to: {error.strerror or error}") from error
    hint = [] if (folder / files.PLAYED).is_dir() else ["  not played yet: python -m experiments.play adds a film"]
    sizes = {path.name: path.stat().st_size for path in sorted(out.iterdir())}
    return [f"  {name:<20} {size / 1e6:>9,.3f} MB" for name, size in sizes.items()] + hint


def _ended(folder: Path) -> Config:
    config, result = read_config(folder), files.result(folder)
    if result.get("status") not in ("finished", "stopped") or not (folder / files.MODEL).is_file():
        raise errors.BadInput(f"{folder} holds no {files.MODEL} of a run that has ended: there is nothing to publish")
    return config


def _impersonal(config: Config) -> Config:
    """Without what is about somebody's machine."""
    usual = RunSettings()
    return replace(config, run=replace(config.run, root=usual.root, dir=usual.dir, name=usual.name))


def _make(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        empty = not any(out.iterdir())
    except OSError as error:
        raise errors.BadInput(f"--dry-run {out} cannot be made: {error.strerror}") from error
    if not empty:
        raise errors.BadInput(f"--dry-run {out} is not empty: choose a new folder")


def _api(flags: argparse.Namespace) -> Any:
    """The Hub's client; raises `BadInput` where it is not there, or nobody is logged in."""
    dry = "; --dry-run DIR shows what would be uploaded"
    if importlib.util.find_spec("huggingface_hub") is None:
        raise errors.BadInput(f"publishing needs huggingface_hub: python -m pip install 'pliant-rl[hub]'{dry}")
    import huggingface_hub

    if huggingface_hub.get_token() is None:
        raise errors.BadInput(
            "not logged in to the Hugging Face Hub: type hf auth login, or set HF_TOKEN to a token that may write "
            f"(https://huggingface.co/settings/tokens); nothing was uploaded{dry}"
        )
    return huggingface_hub.HfApi(library_name="pliant-rl")


def _upload(api: Any, folder: Path, flags: argparse.Namespace) -> str:
    try:
        repo = api.create_repo(flags.repo, private=flags.private or None, exist_ok=True)
        api.upload_folder(repo_id=flags.repo, folder_path=folder, commit_message=f"A run of Pliant: {flags.run.name}")
    except (
        Exception
    ) as error:  # of the network, of the Hub, of its client: what they raise changes from version to version
        said = textwrap.shorten(f"{type(error).__name__}: {error}", 300)
        code = getattr(getattr(error, "response", None), "status_code", None)
        if code in (401, 403):
            raise errors.BadInput(
                f"the Hugging Face Hub refuses to write to {flags.repo}: the token must be one that may write, of "
                f"{flags.repo.partition('/')[0]} or of a member ({said})"
            ) from error
        raise errors.StorageFailure(
            f"{flags.repo} was not uploaded, or not all of it: {said}; the same command again completes it"
        ) from error
    return str(repo)


if __name__ == "__main__":
    sys.exit(main())
