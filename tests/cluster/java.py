"""The JDK and RabbitMQ's Java client, as Debian packages them."""

from __future__ import annotations

import os
import shutil
import subprocess
import warnings
from pathlib import Path

import pytest

_JARS = Path("/usr/share/java")
CLASS_PATH = os.pathsep.join(
    str(_JARS / jar) for jar in ("amqp-client.jar", "slf4j-api.jar", "slf4j-nop.jar")
)


def missing_java() -> list[str]:
    """What is not there of JDK and client."""
    missing = [tool for tool in ("java", "javac") if shutil.which(tool) is None]
    return missing + [jar for jar in CLASS_PATH.split(os.pathsep)[:2] if not Path(jar).exists()]


def require_java() -> None:
    """Skip the test, and say so loudly, where JDK or client are missing; in CI that is a failure."""
    missing = missing_java()
    if not missing:
        return
    text = (
        f"not installed: {', '.join(missing)}; apt-get install default-jdk-headless librabbitmq-client-java"
    )
    if os.environ.get("CI"):
        pytest.fail(text)
    warnings.warn(text, stacklevel=2)
    pytest.skip(text)


def compile_java(source: Path, into: Path) -> None:
    """Compile one file. Raises AssertionError with the compiler's words."""
    command = ["javac", "-cp", CLASS_PATH, "-d", str(into), str(source)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
