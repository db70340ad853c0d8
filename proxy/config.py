"""Configuration: one YAML file, read once at the edge into frozen objects. Every key is in config.example.yaml."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
import yaml

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")


class ConfigError(Exception):
    """The configuration cannot be used; the message says which key and why."""


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class Server(_Section, frozen=True):
    """Where the proxy listens."""

    host: str = "127.0.0.1"
    port: int = 8000
    cors_origins: tuple[str, ...] = ()


class Price(_Section, frozen=True):
    """Money per million tokens. `cached` (read from the provider's cache) and `written` (into it): as `input` where not given."""

    input: float = 0.0
    output: float = 0.0
    cached: float | None = None
    written: float | None = None


class UpstreamConfig(_Section, frozen=True):
    """One provider. `models` are names or patterns with *; the first upstream that matches serves the request."""

    name: str
    kind: Literal["openai", "anthropic", "litellm", "llama", "llama_server"]
    models: tuple[str, ...] = ("*",)
    speaks: tuple[Literal["chat", "responses", "messages"], ...] = ()  # empty: by kind; others are translated
    base_url: str = ""
    api_key: str = ""
    headers: dict[str, str] = {}
    provider: str = ""  # litellm: "anthropic", "bedrock", "gemini" …
    options: dict[str, Any] = {}  # litellm: further keyword arguments (aws_region_name …)
    model_path: str = ""  # llama: a GGUF file; empty = the bundled SmolLM2-135M-Instruct
    slots_folder: str = (
        ""  # llama_server: its --slot-save-path, where this machine has it; erasing then deletes the files
    )
    slots_mb: int = 4096  # llama_server: of saved states; 0: none are saved
    connect_timeout_s: float = 10.0
    timeout_s: float = 600.0  # silence on an open answer
    ca_file: str = ""
    fallback: tuple[str, ...] = ()  # names of upstreams, or name/model, that are asked when this one cannot answer
    prices: dict[str, Price] = {}  # model name or pattern → what it costs; the first that matches
    first_byte_s: float = 0.0  # with a fallback: how long it may be silent; 0: timeout_s


class MemorySettings(_Section, frozen=True):
    """How much memory goes into a request, and how long a request may wait for it."""

    deadline_ms: int = 1000
    record_deadline_ms: int = 3000
    recall_tokens: int = 1000
    stable_tokens: int = 400
    remind: bool = True
    embedder: str = "all-MiniLM-L6-v2"
    embedder_threads: int = 1
    reranker: str = ""
    rows_mb: int = 64
    warm_mb: int = 512


class Extraction(_Section, frozen=True):
    """The model that extracts memories; without one, rules do."""

    model: str = ""
    batch_turns: int = 8
    debounce_s: float = 3.0
    calls_per_minute: float = 0.0  # of one executor; 0: no limit


class Evolution(_Section, frozen=True):
    """When memories are thought over, and what may be archived for want of use (it can come back; 0: never)."""

    quiet_s: float = 60.0
    archive_after_days: float = 0.0
    archive_episodes_after_days: float = 0.0


class Prediction(_Section, frozen=True):
    """What is foreseen for the next turn and the next session."""

    guesses: bool = False


class Limits(_Section, frozen=True):
    """What a client may send."""

    body_bytes: int = 64 * 1024 * 1024
    upload_bytes: int = 1024 * 1024 * 1024
    import_bytes: int = 1024 * 1024 * 1024


class ResponseSettings(_Section, frozen=True):
    """Responses that no upstream keeps."""

    keep_days: float = 30.0  # 0: none is kept


class JwtConfig(_Section, frozen=True):
    """Whose tokens are believed. `secret`: HS256; `jwks_file`: RS256 and ES256 by the public keys in it."""

    secret: str = ""
    jwks_file: str = ""
    issuer: str = ""
    audience: str = ""
    claim: str = "sub"
    leeway_s: float = 30.0  # how far clocks may be apart
    scopes: tuple[str, ...] = ("chat", "memory:read", "memory:write")
    header: str = "x-openwebui-user-jwt"  # of end users: where their token stands


class Tokens(_Section, frozen=True):
    """Signed tokens. `bearer`: in place of a key; `user`: the end user within a key that has the scope act_as_user."""

    bearer: JwtConfig = JwtConfig()
    user: JwtConfig = JwtConfig()


class Quota(_Section, frozen=True):
    """What a key may use; 0: no limit. Minutes and `concurrent` are counted by each proxy process, budgets by all together."""

    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    concurrent: int = 0
    tokens_per_day: int = 0
    tokens_per_month: int = 0
    cost_per_day: float = 0.0
    cost_per_month: float = 0.0


class ExecutorSettings(_Section, frozen=True):
    """The process that runs jobs."""

    concurrency: int = 4
    poll_s: float = 0.25
    sweep_s: float = 10.0
    attempts: int = 5
    limits: dict[str, int] = {}  # task → jobs at a time
    keep_failed_days: float = 30.0  # 0: for ever


class EngineSettings(_Section, frozen=True):
    """The process that runs local models; it listens on loopback only."""

    port: int = 0  # 0: a free one, chosen by `memrelay serve`
    slots: int = 4
    context: int = 4096
    threads: int = 2
    kv: bool = True
    kv_ram_mb: int = 512
    kv_disk_mb: int = 4096
    kv_type: Literal["f16", "q8_0"] = "f16"


class Parametric(_Section, frozen=True):
    """Adapters (LoRA) for the local model, trained on the memories of the cubes whose owners switch them on."""

    enabled: bool = False
    least: int = 8  # memories
    most: int = 200
    every_h: float = 6.0  # between two trainings of a cube
    rank: int = 16
    last_layers: int = 10  # 0: all layers are trained
    epochs: int = 12
    threads: int = 1
    cache_mb: int = 256  # of adapters that the engine holds


class Sessions(_Section, frozen=True):
    """How requests are read. `task_markers` are further texts that mark a background call (title, tags …)."""

    task_markers: tuple[str, ...] = ()
    session_headers: tuple[str, ...] = (
        "x-memory-session",
        "x-openwebui-chat-id",
        "x-librechat-conversation-id",
    )
    user_headers: tuple[str, ...] = ("x-memory-user", "x-openwebui-user-id", "x-librechat-user-id")


class Logging(_Section, frozen=True):
    """Log lines name ids and counts, never what people said."""

    level: Literal["debug", "info", "warning", "error"] = "info"


class TriggerConfig(_Section, frozen=True):
    """When `event` happens, run `task`; see scheduler.triggers.Trigger. proxy.rules checks it against what there is."""

    event: str
    task: str
    priority: int = 5
    delay_s: float = 0.0
    debounce_s: float = 0.0
    every_s: float = 0.0


class Config(_Section, frozen=True):
    """Everything that can be configured."""

    data: str = "data"
    database: str = ""  # empty: SQLite in the data folder
    store: str = ""  # empty: LanceDB in the data folder
    queue: str = ""  # empty: SQLite in the data folder
    server: Server = Server()
    upstreams: tuple[UpstreamConfig, ...] = ()
    aliases: dict[str, str] = {}  # model name for clients → upstream/model
    memory: MemorySettings = MemorySettings()
    extraction: Extraction = Extraction()
    evolution: Evolution = Evolution()
    prediction: Prediction = Prediction()
    limits: Limits = Limits()
    responses: ResponseSettings = ResponseSettings()
    quota: Quota = Quota()
    tokens: Tokens = Tokens()
    executor: ExecutorSettings = ExecutorSettings()
    engine: EngineSettings = EngineSettings()
    parametric: Parametric = Parametric()
    sessions: Sessions = Sessions()
    logging: Logging = Logging()
    hooks: tuple[str, ...] = ()
    triggers: tuple[TriggerConfig, ...] = ()

    @property
    def folder(self) -> Path:
        """The data folder, absolute."""
        return Path(self.data).expanduser().absolute()

    @property
    def database_url(self) -> str:
        """The SQLAlchemy URL of the metadata database; PostgreSQL is spoken to by psycopg, which the queue brings."""
        named = self.database.replace("postgresql://", "postgresql+psycopg://", 1)
        return named or f"sqlite+aiosqlite:///{self.folder / 'memrelay.sqlite'}"

    @property
    def store_root(self) -> str:
        """The absolute folder or object-store prefix of the index."""
        return self.store or str(self.folder / "lance")

    @property
    def adapters(self) -> Path:
        """Where trained adapters lie."""
        return self.folder / "adapters"

    @property
    def cubes(self) -> Path:
        """Where the files of cubes' other forms lie, a folder a cube."""
        return self.folder / "cubes"

    @property
    def queue_url(self) -> str:
        """The SQLAlchemy URL of the job queue's database."""
        return self.queue or f"sqlite:///{self.folder / 'queue.sqlite'}"

    @property
    def local_model(self) -> UpstreamConfig | None:
        """The upstream that the engine process serves, if there is one."""
        return next((upstream for upstream in self.upstreams if upstream.kind == "llama"), None)


def load(path: str | None, *, data: str | None = None, environment: Mapping[str, str] | None = None) -> Config:
    """Read the file (none: all defaults). `data` overrides the file's data folder. Raises ConfigError."""
    env = os.environ if environment is None else environment
    raw: Any = {}
    if path:
        try:
            raw = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
        except OSError as error:
            raise ConfigError(f"cannot read {path}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise ConfigError(f"{path} is not UTF-8 text") from error
        except yaml.YAMLError as error:
            raise ConfigError(f"{path} is not YAML: {error}") from error
    if not isinstance(raw, dict):
        raise ConfigError("the configuration must be a mapping of keys")
    raw = {name: value for name, value in _expand(raw, env, "").items() if value is not None}  # an empty section
    if data:
        raw["data"] = data
    try:
        config = msgspec.convert(raw, Config, strict=False)  # ${PORT} is text
    except msgspec.ValidationError as error:
        raise ConfigError(str(error)) from error
    if not config.upstreams:
        config = msgspec.structs.replace(config, upstreams=(UpstreamConfig(name="local", kind="llama"),))
    return _checked(_lowered(config))


def _lowered(config: Config) -> Config:
    """With the names of headers as requests have them."""
    reading, tokens = config.sessions, config.tokens
    named = {name: tuple(map(str.lower, getattr(reading, name))) for name in ("session_headers", "user_headers")}
    user = msgspec.structs.replace(tokens.user, header=tokens.user.header.lower())
    return msgspec.structs.replace(
        config,
        sessions=msgspec.structs.replace(reading, **named),
        tokens=msgspec.structs.replace(tokens, user=user),
    )


def _checked(config: Config) -> Config:
    names = [upstream.name for upstream in config.upstreams]
    if len(set(names)) != len(names):
        raise ConfigError("upstreams: every name may occur once")
    if sum(upstream.kind == "llama" for upstream in config.upstreams) > 1:
        raise ConfigError("upstreams: one upstream of kind llama is served per machine")
    for upstream in config.upstreams:
        where = f"upstreams.{upstream.name}"
        if upstream.slots_mb < 0:
            raise ConfigError(f"{where}.slots_mb must not be negative; 0 saves nothing")
        if upstream.kind in ("openai", "llama_server") and not upstream.base_url.startswith(("http://", "https://")):
            raise ConfigError(f"{where}.base_url: an http(s) URL is needed, such as https://api.openai.com/v1")
        if upstream.speaks and not {"chat", "messages"} & set(upstream.speaks):
            raise ConfigError(f"{where}.speaks: chat or messages is needed, to translate the others into")
        if upstream.kind == "litellm" and not upstream.provider:
            raise ConfigError(f"{where}.provider: which provider litellm shall call, such as anthropic")
    for upstream in config.upstreams:
        for entry in upstream.fallback:
            other = entry.partition("/")[0]
            if other not in names or other == upstream.name:
                raise ConfigError(f"upstreams.{upstream.name}.fallback: there is no other upstream {other!r}")
    for alias, target in config.aliases.items():
        if target.partition("/")[0] not in names or not target.partition("/")[2]:
            raise ConfigError(
                f"aliases.{alias}: upstream/model is needed, with the name of an upstream, not {target!r}"
            )
    if config.extraction.calls_per_minute < 0:
        raise ConfigError("extraction.calls_per_minute must not be negative; 0 is no limit")
    if config.executor.keep_failed_days < 0:
        raise ConfigError("executor.keep_failed_days must not be negative")
    if config.responses.keep_days < 0:
        raise ConfigError("responses.keep_days must not be negative; 0 keeps none")
    for name in ("kv_ram_mb", "kv_disk_mb"):
        if getattr(config.engine, name) < 0:
            raise ConfigError(f"engine.{name} must not be negative; 0 keeps nothing there")
    parametric = config.parametric
    for name in ("least", "most", "rank", "epochs", "threads", "cache_mb"):
        if getattr(parametric, name) < 1:
            raise ConfigError(f"parametric.{name} must be at least 1")
    if parametric.every_h < 0 or parametric.last_layers < 0:
        raise ConfigError("parametric.every_h and parametric.last_layers must not be negative")
    for task, most in config.executor.limits.items():
        if most < 1:
            raise ConfigError(f"executor.limits.{task}: at least one job at a time, not {most}")
    return config


def _expand(value: Any, env: Mapping[str, str], where: str) -> Any:
    """Put environment variables in: `${NAME}` must be set, `${NAME:-default}` need not."""
    if isinstance(value, dict):
        return {key: _expand(inner, env, f"{where}.{key}".lstrip(".")) for key, inner in value.items()}
    if isinstance(value, list):
        return [_expand(inner, env, f"{where}[{i}]") for i, inner in enumerate(value)]
    if not isinstance(value, str):
        return value

    def put(match: re.Match[str]) -> str:
        name, default = match.group(1), match.group(2)
        if name in env:
            return env[name]
        if default is None:
            raise ConfigError(f"{where}: the environment variable {name} is not set")
        return default

    return _VARIABLE.sub(put, value)
