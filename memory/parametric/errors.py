"""What can go wrong when an adapter is made. The message is for whoever runs the installation and holds no one's words."""

from __future__ import annotations


class TrainingError(Exception):
    """Training cannot be done, or came to nothing. `code` is one word for the job list."""

    code = "failed"


class NotInstalled(TrainingError):
    """The packages of the extra `lora` are missing."""

    code = "not_installed"


class Unsupported(TrainingError):
    """The model cannot be trained here: its architecture is not known, or two programs read its file differently."""

    code = "unsupported"


class TooFew(TrainingError):
    """The memories give too few questions."""

    code = "too_few"


class Stopped(TrainingError):
    """The process that trained was told to stop."""

    code = "stopped"
