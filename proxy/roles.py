"""The three processes, each as a coroutine that runs until it is told to stop: proxy, executor, engine."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import os
import signal
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn

from memory.adapters.files import Folder
from memory.adapters.table import Adapters
from memory.agenda import Agenda
from memory.cube import Cubes
from memory.embedders import Embedders
from memory.erase import Receipts
from memory.extract import LlmExtractor
from memory.extract.ask import Asker
from memory.guess import Guesses
from memory.index import Index
from memory.organise import Organiser
from memory.parametric.settings import Settings
from memory.reflect import Policy, Reflector
from memory.reflect.fading import DAY_S
from memory.retrieve import Retriever
from memory.sql import Database
from memory.store import Store
from memory.turns import TurnLog
from proxy import app, db, hooks, rules
from proxy.activating import Activation
from proxy.config import Config, ConfigError
from proxy.forecasts import Forecasts
from proxy.heads import Heads
from proxy.licence import Licence
from proxy.metrics import ExecutorMetrics
from proxy.predicting import Due, Predictor
from proxy.scrape import MetricsFile
from proxy.standing import Standing
from proxy.tasks import Sweep, Work
from proxy.training import TRAIN, Training, Wanted
from proxy.upstreams import routing
from proxy.upstreams.model import UpstreamModel
from proxy.upstreams.pace import Pace
from scheduler.executor import Executor
from scheduler.jobs import JobQueue
from scheduler.queue import DbosQueue
from scheduler.queue import engine as queue_engine
from scheduler.ticks import Ticks
from scheduler.triggers import Clock, Triggers

if TYPE_CHECKING:
    from memory.engine.settings import EngineSettings

log = logging.getLogger(__name__)
_PR_SET_PDEATHSIG = 1
_SWITCH_S = 0.001  # so long the event loop waits at most for a thread that compares or embeds (Python: 0.005)
_COLLECT_AFTER = 20_000  # new objects; nearly all are freed without the collector, which looks at all cubes in memory
_RULES_BATCH = 4  # turns of one transaction: a chat that writes beside it waits so long
_GIVES_WAY = 10  # on a busy machine chats come first
_EXECUTOR_WARM = 128 << 20  # bytes of cubes that predictions look at


def die_with_parent() -> None:
    """Ask the kernel to end this process when the supervisor ends, even by kill -9 (Linux only)."""
    parent = os.getppid()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if parent == 1:  # it ended before we could ask
        sys.exit(1)


async def proxy(config: Config, engine_port: int) -> None:
    """Serve HTTP."""
    gc.set_threshold(_COLLECT_AFTER, 50, 100)
    sys.setswitchinterval(_SWITCH_S)
    settings = uvicorn.Config(
        app.build(config, engine_port=engine_port),
        host=config.server.host,
        port=config.server.port,
        http="httptools",
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=20,
    )
    await uvicorn.Server(settings).serve()


async def executor(config: Config, engine_port: int) -> None:
    """Run jobs, in the time that chats leave."""
    sys.setswitchinterval(_SWITCH_S)
    with suppress(OSError):
        os.nice(_GIVES_WAY)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    added = hooks.load(config.hooks)
    table = rules.table(config, added)
    licence = Licence()
    database = db.open_database(config, licence.holds, gives_way=True)
    licence.of(database)
    embedders = Embedders(database, config.folder / "models", threads=config.memory.embedder_threads)
    embedder = await embedders.current(config.memory.embedder)
    routes = routing.make(config, engine_port, database)
    queue = DbosQueue(config.queue_url)
    pace = Pace(config.extraction.calls_per_minute)
    model = UpstreamModel(routes, config.extraction.model, pace) if config.extraction.model else None
    store = Store(config.store_root, permit=licence.check)
    threads = ThreadPoolExecutor(max_workers=1, thread_name_prefix="embed")
    retriever = Retriever(database, store, embedder, threads, budget=_EXECUTOR_WARM)
    predictor = Predictor(
        cubes=Cubes(database),
        turns=TurnLog(database),
        retriever=retriever,
        forecasts=Forecasts(database),
        clock=time.time,
        urgent=Due(Agenda(database)),
        guesser=Guesses(Asker(model)) if model and config.prediction.guesses else None,
    )
    secret = await db.shared_secret(database)
    states = Activation(
        routes=routes,
        cubes=Cubes(database),
        heads=Heads(database, None, time.time),
        standing=Standing(database, secret, config.memory.stable_tokens, time.time),
        clock=time.time,
        adapter=Adapters(database).asked if config.parametric.enabled else None,
    )
    work = Work(
        database=database,
        cubes=Cubes(database),
        receipts=Receipts(database),
        turns=TurnLog(database),
        organiser=Organiser(database, embedder),
        index=Index(database, store, embedder),
        store=store,
        extractor=LlmExtractor(model) if model else None,
        batch=config.extraction.batch_turns if model else _RULES_BATCH,
        reflector=Reflector(database, embedder, asker=Asker(model) if model else None, policy=_policy(config)),
        predictor=predictor,
        states=states,
        quiet_s=config.evolution.quiet_s,
        adapters=Folder(config.adapters),
        files=config.cubes,
    )
    training = _training(config, database, queue, stop)
    metrics = ExecutorMetrics()
    fired = Triggers(queue, table, metrics.triggered)
    clocks = queue_engine(config.queue_url)
    ticks = Ticks(clocks)
    clock = Clock(fired, table, work.active, lambda name, every_s: asyncio.to_thread(ticks.mine, name, every_s))
    sweep = Sweep(
        work,
        queue,
        keep_failed_s=config.executor.keep_failed_days * DAY_S or None,
        keep_responses_s=config.responses.keep_days * DAY_S,
    )

    async def beat() -> None:
        await sweep()
        await clock()
        if training is not None:
            await training.look()

    runs = Executor(
        config.queue_url,
        [*work.tasks(config.executor.attempts), *rules.tasks(added), *([training.task()] if training else [])],
        concurrency=config.executor.concurrency,
        limits={TRAIN: 1, **config.executor.limits},
        poll_s=config.executor.poll_s,
        beat=beat,
        beat_s=config.executor.sweep_s,
        seen=metrics.ran,
        licences=licence,
    )
    shown = MetricsFile(config.folder / "metrics", f"{socket.gethostname()}-{os.getpid()}", metrics.registry)
    showing = asyncio.create_task(shown.run())
    try:
        await runs.run(stop)
    finally:
        showing.cancel()
        await asyncio.gather(showing, return_exceptions=True)
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(max_workers=4))
        await retriever.close()
        threads.shutdown(wait=False)
        await routes.close()
        await fired.close()
        await queue.close()
        clocks.dispose()
        await database.close()


def _training(config: Config, database: Database, queue: JobQueue, stop: asyncio.Event) -> Training | None:
    """Who trains adapters; None when that is off."""
    wanted = config.parametric
    if not wanted.enabled:
        return None
    settings = Settings(
        rank=wanted.rank,
        alpha=2.0 * wanted.rank,
        epochs=wanted.epochs,
        last_layers=wanted.last_layers,
        threads=wanted.threads,
    )
    how = Wanted(_model_path(config), wanted.least, wanted.most, wanted.every_h * 3600, settings)
    return Training(database, Folder(config.adapters), how, queue, stop)


def _policy(config: Config) -> Policy:
    wanted = config.evolution
    return Policy(wanted.archive_after_days * DAY_S, wanted.archive_episodes_after_days * DAY_S)


async def engine(config: Config, port: int) -> None:
    """Serve the local model on loopback."""
    try:
        from proxy import engine_app, engine_states
    except ImportError as error:
        raise ConfigError("local models need the extra: pip install 'memrelay[local]'") from error
    settings = engine_settings(config)
    adapters = engine_states.adapters(config, settings)
    await engine_app.serve(settings, "127.0.0.1", port, engine_states.states(config), adapters)


def _model_path(config: Config) -> Path:
    """The local model's file. Raises ConfigError, NoModel."""
    from memory.engine.settings import bundled_model

    upstream = config.local_model
    if upstream is None:
        raise ConfigError("no upstream of kind llama is configured")
    return Path(upstream.model_path).expanduser() if upstream.model_path else bundled_model()


def engine_settings(config: Config) -> EngineSettings:
    """What the engine is told. Raises ConfigError, NoModel."""
    from memory.engine.settings import EngineSettings

    path, upstream = _model_path(config), config.local_model
    assert upstream is not None
    return EngineSettings(
        model_path=path,
        model_name=upstream.models[0] if upstream.models and "*" not in upstream.models[0] else path.stem,
        slots=config.engine.slots,
        context=config.engine.context,
        threads=config.engine.threads,
        kv_type=config.engine.kv_type,
    )
