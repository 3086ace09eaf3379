"""Which code runs: its git revision, and a snapshot, so that a run goes on as it was launched."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import subprocess
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
NAME = "revision.txt"  # beside the package in a snapshot, which is no clone


def find_revision() -> str:
    """The revision of this code, `+` for a changed tree; empty outside a clone."""
    noted = PACKAGE.parent / NAME
    return noted.read_text() if noted.exists() else ask_git()


def ask_git() -> str:
    # Asking takes no lock: a run killed while it asks would leave it to whoever commits next.
    git = ["git", "--no-optional-locks", "-C", str(PACKAGE)]
    try:
        head = subprocess.run(
            [*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=False
        )
        status = subprocess.run(
            [*git, "status", "--porcelain", "--", "."], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return ""
    if head.returncode or status.returncode:
        return ""
    return head.stdout.strip() + ("+" if status.stdout.strip() else "")


def take_snapshot(folder: Path) -> Path:
    """A copy of the package below `folder`, one per code and revision: what to start runs in."""
    files = {path.relative_to(PACKAGE.parent): path.read_bytes() for path in list_files()}
    revision = find_revision()
    digest = hashlib.sha256(revision.encode())
    for name, content in files.items():
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    snapshot = folder / digest.hexdigest()[:12]
    if snapshot.is_dir():
        return snapshot
    temporary = folder / f".{snapshot.name}.{os.getpid()}.{secrets.token_hex(4)}"
    for name, content in files.items():
        (temporary / name).parent.mkdir(parents=True, exist_ok=True)
        (temporary / name).write_bytes(content)
    (temporary / NAME).write_text(revision)
    try:
        temporary.rename(snapshot)
    except OSError:  # another launcher was quicker
        shutil.rmtree(temporary)
    return snapshot


def list_files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))
