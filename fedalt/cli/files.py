"""Files that a command is asked to write: where they shall go is checked before the work."""

from __future__ import annotations

from pathlib import Path

from fedalt.errors import ConfigError, nearest

PICTURES = (".png", ".svg", ".pdf")


def picture_path(text: str | None, option: str = "--plot") -> Path | None:
    """Check where a picture shall go, before anything long begins."""
    if text is None:
        return None
    path = Path(text)
    if path.suffix.lower() not in PICTURES:
        hint = nearest(path.suffix, PICTURES) if path.suffix else f" (use {', '.join(PICTURES)})"
        raise ConfigError(f"{option} {text}: unknown kind of picture '{path.suffix}'{hint}")
    return file_path(text, option)


def file_path(text: str | None, option: str) -> Path | None:
    """Check where a file shall go: a folder must be there, and it must be no folder."""
    if text is None:
        return None
    path = Path(text)
    if not path.parent.is_dir():
        raise ConfigError(f"{option} {text}: there is no folder '{path.parent}'; make it first")
    if path.is_dir():
        raise ConfigError(f"{option} {text}: that is a folder; name a file in it")
    return path


def cannot_write(option: str, path: Path, error: OSError) -> ConfigError:
    """Return the error for a file that cannot be written."""
    return ConfigError(f"{option} {path}: cannot be written ({error.strerror})")
