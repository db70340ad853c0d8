"""The real Open WebUI, from PyPI, as a server of its own; and a browser that is told what to do in it.

Both live in environments beside ours (`make openwebui` installs them). Open WebUI is set up the way docs/CLIENTS.md tells its users
to; everything else here keeps it from the network, and opens it to a second user.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import httpx

from tests.fakes import free_port
from tests.live import wait_for

ROOT = Path(__file__).parents[2]
FOLDER = Path(os.environ.get("OPENWEBUI", ROOT / ".cache" / "openwebui")).absolute()
BROWSER = FOLDER.parent / "browser" / "bin" / "python"
ADMIN = {"email": "admin@example.com", "password": "pw-Admin-12345"}
_QUIET = {
    "ENABLE_PERSISTENT_CONFIG": "false",  # what is said here holds, not what its database says
    "OFFLINE_MODE": "true",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "BYPASS_EMBEDDING_AND_RETRIEVAL": "true",
    "RAG_EMBEDDING_ENGINE": "openai",
    "SCARF_NO_ANALYTICS": "true",
    "DO_NOT_TRACK": "true",
    "ANONYMIZED_TELEMETRY": "false",
    "ENABLE_VERSION_UPDATE_CHECK": "false",
    "ENABLE_COMMUNITY_SHARING": "false",
    "ENABLE_OLLAMA_API": "false",
    "WEBUI_ADMIN_EMAIL": ADMIN["email"],
    "WEBUI_ADMIN_PASSWORD": ADMIN["password"],
    "WEBUI_ADMIN_NAME": "Admin",
    "BYPASS_MODEL_ACCESS_CONTROL": "true",  # models are the administrator's alone otherwise
    "DEFAULT_MODELS": "mirror",
    "DEFAULT_MODEL_METADATA": '{"capabilities":{"builtin_tools":false,"usage":true}}',
    "WEBUI_SECRET_KEY": "a-secret-of-this-test-0123456789abcdef",
    "GLOBAL_LOG_LEVEL": "INFO",
}


def told_to_users(**given: str) -> dict[str, str]:
    """The variables that docs/CLIENTS.md tells users of Open WebUI to set, with these values in place of those there."""
    text = (ROOT / "docs" / "CLIENTS.md").read_text(encoding="utf-8")
    block = re.search(r"## Open WebUI.*?```sh\n(.*?)```", text, re.DOTALL)
    assert block is not None
    found = dict(re.findall(r"^(?:export )?([A-Z_]+)='?(.*?)'?$", block.group(1), re.MULTILINE))
    return found | given


class OpenWebUI:
    """Start it with `with`; it has an administrator."""

    def __init__(self, data: Path, environment: dict[str, str]) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = data / "openwebui.log"
        here = {"DATA_DIR": str(data / "openwebui"), "WEBUI_URL": self.url, "CORS_ALLOW_ORIGIN": self.url}
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        self._environment = {**kept, **_QUIET, **here, **environment}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> OpenWebUI:
        command = [FOLDER / "bin" / "open-webui", "serve", "--host", "127.0.0.1", "--port", str(self.port)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, env=self._environment, cwd=self._log.parent
            )
        wait_for(self._healthy, f"Open WebUI to serve (see {self._log})", 240)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.wait(60)

    def add(self, name: str, password: str) -> str:
        """A further user; returns its id."""
        token = self._post("/api/v1/auths/signin", ADMIN)["token"]
        made = {"name": name, "email": f"{name.lower()}@example.com", "password": password, "role": "user"}
        return str(self._post("/api/v1/auths/add", made, token)["id"])

    def _post(self, path: str, body: dict[str, str], token: str = "") -> dict[str, Any]:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        answer = httpx.post(f"{self.url}{path}", json=body, headers=headers, timeout=60)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    def _healthy(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health", timeout=2).status_code == 200
        except httpx.HTTPError:
            return False


def browse(url: str, user: dict[str, str], chats: list[dict[str, Any]], timeout_s: float = 240) -> list[list[str]]:
    """Sign in and have these chats, each in one of its own: `say` (texts), perhaps `temporary`, perhaps `picture` (a file to
    write). Returns the answers."""
    plan = json.dumps({"url": url, "user": user, "chats": chats})
    script = Path(__file__).with_name("browser.py")
    ran = subprocess.run([BROWSER, script], input=plan, capture_output=True, text=True, timeout=timeout_s)
    assert ran.returncode == 0, ran.stderr[-3000:]
    answers: list[list[str]] = json.loads(ran.stdout)
    return answers
