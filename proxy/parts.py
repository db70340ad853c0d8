"""What the proxy process is made of: everything is made here, once, and handed down. Importing this module does nothing."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from memory import rerank
from memory.adapters.files import Folder
from memory.adapters.table import Adapters
from memory.agenda import Agenda
from memory.cube import Cubes
from memory.embedders import Embedders
from memory.erase import Receipts
from memory.grants import Grants
from memory.memories import Memories
from memory.models import Embedder
from memory.retrieve import Retriever
from memory.rows import Rows
from memory.sql import Database
from memory.store import Store
from memory.turns import TurnLog
from proxy import db, hooks, rules
from proxy.activating import Activation
from proxy.auth import Auth
from proxy.background import Background
from proxy.blocks import Blocks, visits
from proxy.chains import Chains
from proxy.config import Config
from proxy.forecasts import Forecasts
from proxy.foresight import Foresight
from proxy.heads import Heads
from proxy.hooks import Hooks
from proxy.keeping import Kept
from proxy.kept import Names, Responses
from proxy.keys import Keys
from proxy.lifecycle import Lifecycle
from proxy.limits import Limiter
from proxy.metering import Metering
from proxy.metrics import Metrics
from proxy.objects import Objects
from proxy.owed import Owed
from proxy.predicting import Due
from proxy.remember import Remember
from proxy.scrape import Scrape
from proxy.standing import Standing
from proxy.tokens import verifier
from proxy.upstreams import routing
from proxy.upstreams.routing import Routes
from proxy.usage import Prices, Usage
from scheduler.jobs import JobQueue
from scheduler.queue import DbosQueue
from scheduler.triggers import Triggers

log = logging.getLogger(__name__)
_SETTLES_S = 0.3
_FRESH_S = 3.0  # after a turn; by then the executor has mostly embedded it
VISITS_S = 60 * 86400.0  # what began before is not looked at to say which cubes are in use


@dataclass(frozen=True, slots=True)
class Parts:
    """What the proxy process is made of."""

    config: Config
    database: Database
    store: Store
    threads: ThreadPoolExecutor
    embedder: Embedder
    retriever: Retriever
    kept: Kept
    memories: Memories
    cubes: Cubes
    grants: Grants
    receipts: Receipts
    lifecycle: Lifecycle
    adapters: Adapters
    folder: Folder
    turns: TurnLog
    keys: Keys
    auth: Auth
    blocks: Blocks
    objects: Objects
    names: Names
    responses: Responses
    chains: Chains
    usage: Usage
    metering: Metering
    remember: Remember
    foresight: Foresight
    states: Activation
    rows: Rows
    routes: Routes
    hooks: Hooks
    queue: JobQueue
    triggers: Triggers
    metrics: Metrics
    scrape: Scrape
    background: Background
    close: Callable[[], Awaitable[None]]


async def assemble(
    config: Config,
    *,
    engine_port: int = 0,
    clock: Callable[[], float] = time.time,
    alone: bool = False,
) -> Parts:
    """Make the parts. The database must have been brought up to date. `alone`: nobody works off the queue, and no time but the
    given clock's passes: nothing is put into the queue, and whoever assembles lets the foresight tick."""
    database = db.open_database(config)
    store = Store(config.store_root)
    settings = config.memory
    embedders = Embedders(database, config.folder / "models", threads=settings.embedder_threads)
    embedder = await embedders.current(settings.embedder)
    reranker = (
        await asyncio.to_thread(rerank.make, settings.reranker, threads=settings.embedder_threads)
        if settings.reranker
        else None
    )
    threads = ThreadPoolExecutor(max_workers=min(os.cpu_count() or 1, 4), thread_name_prefix="embed")
    await asyncio.get_running_loop().run_in_executor(threads, embedder.embed_query, "warm up")
    background, metrics = Background(), Metrics()
    queue = DbosQueue(config.queue_url)
    cubes, memories, turns = Cubes(database), Memories(database, clock), TurnLog(database)
    grants = Grants(database, clock)
    kept = Kept(clock)
    kept.visited(await visits(database, clock() - VISITS_S))
    rows = Rows(database, budget=settings.rows_mb << 20, counted=metrics.rows_read_ahead)
    retriever = Retriever(
        database,
        store,
        embedder,
        threads,
        rows=rows,
        reranker=reranker,
        earlier=embedders.earlier,
        budget=settings.warm_mb << 20,
        keeping=kept,
        fresh_s=0.0 if alone else _FRESH_S,
    )
    blocks = Blocks(database, background)
    added = hooks.load(config.hooks)
    table = [] if alone else rules.table(config, added)
    fired = Triggers(queue, table, metrics.triggered)
    foresight = Foresight(
        retriever=retriever,
        rows=rows,
        forecasts=Forecasts(database),
        metrics=metrics,
        urgent=Due(Agenda(database)),
        expects=kept.expects,
        clock=clock,
        settles_s=0.0 if alone else _SETTLES_S,
    )
    secret = await db.shared_secret(database)
    standing = Standing(database, secret, settings.stable_tokens, clock)
    routes = routing.make(config, engine_port, database, metrics.fell_back)
    adapters = Adapters(database, clock)
    states = Activation(
        routes=routes,
        cubes=cubes,
        heads=Heads(database, background, clock),
        standing=standing,
        clock=clock,
        adapter=adapters.asked if config.parametric.enabled else None,
    )
    remember = Remember(
        settings=config.memory,
        reading=config.sessions,
        secret=secret,
        cubes=cubes,
        grants=grants,
        turns=turns,
        memories=memories,
        standing=standing,
        retriever=retriever,
        agenda=Agenda(database),
        blocks=blocks,
        foresight=foresight,
        states=states,
        triggers=fired,
        metrics=metrics,
        spawn=background,
        clock=clock,
    )
    run = Hooks([*added, remember], lambda name: metrics.hook_failures.labels(name).inc())
    foresight.hand_over(states.read_ahead)
    names = Names(secret)
    responses = Responses(database, config.responses.keep_days * 86400.0, clock)
    chains = Chains(names, responses, run, config.sessions, clock)
    keys, folder = Keys(database, clock), Folder(config.adapters)

    usage, prices = Usage(database, clock), Prices(config.upstreams)
    writing = asyncio.create_task(usage.run())
    looking = asyncio.create_task(asyncio.sleep(0) if alone else foresight.run())

    async def close() -> None:
        looking.cancel()
        writing.cancel()
        await asyncio.gather(looking, writing, return_exceptions=True)
        await chains.close()
        await routes.close()
        given_up = await background.drain(15)
        if given_up:
            log.warning("%d background tasks were given up", given_up)
        await fired.close()
        await queue.close()
        await usage.flush()
        await retriever.close()
        threads.shutdown(wait=False)
        await database.close()

    return Parts(
        config=config,
        database=database,
        store=store,
        threads=threads,
        embedder=embedder,
        retriever=retriever,
        kept=kept,
        memories=memories,
        cubes=cubes,
        grants=grants,
        receipts=Receipts(database),
        lifecycle=Lifecycle(
            database, cubes, grants, blocks, fired, states.forget, foresight.let_go, clock, folder, config.cubes
        ),
        adapters=adapters,
        folder=folder,
        turns=turns,
        keys=keys,
        auth=Auth(
            keys,
            clock,
            bearers=verifier(config.tokens.bearer, "tokens.bearer"),
            users=verifier(config.tokens.user, "tokens.user"),
        ),
        blocks=blocks,
        objects=Objects(database, background, clock),
        names=names,
        responses=responses,
        chains=chains,
        usage=usage,
        metering=Metering(
            Limiter(usage, config.quota, clock), usage, prices, metrics, Owed(database, prices, clock), background
        ),
        remember=remember,
        foresight=foresight,
        states=states,
        rows=rows,
        routes=routes,
        hooks=run,
        queue=queue,
        triggers=fired,
        metrics=metrics,
        scrape=Scrape(metrics.registry, config.folder / "metrics", queue, {rule.task for rule in table}, clock),
        background=background,
        close=close,
    )
