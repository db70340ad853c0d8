"""The APIs beside the chat surfaces, each made of the parts it needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from memory.agenda import Agenda
from memory.census import Census
from memory.graph import Graph
from memory.walk import Walk
from proxy.adapters_api import AdaptersApi
from proxy.agenda_api import AgendaApi
from proxy.cubes_api import CubesApi
from proxy.feedback_api import FeedbackApi
from proxy.forecasts import Forecasts
from proxy.graph_api import GraphApi
from proxy.jobs_api import JobsApi
from proxy.memory_api import MemoryApi
from proxy.mover import Mover
from proxy.parts import Parts
from proxy.predicting import Due, Predictor
from proxy.responses_api import ResponsesApi
from proxy.scenes_api import ScenesApi
from proxy.tiers_api import TiersApi
from proxy.transfer_api import TransferApi
from proxy.usage_api import UsageApi


@dataclass(frozen=True, slots=True)
class Apis:
    """One of each."""

    memory: MemoryApi
    cubes: CubesApi
    feedback: FeedbackApi
    graph: GraphApi
    agenda: AgendaApi
    jobs: JobsApi
    usage: UsageApi
    transfer: TransferApi
    scenes: ScenesApi
    tiers: TiersApi
    adapters: AdaptersApi
    responses: ResponsesApi


def make(parts: Parts, clock: Callable[[], float]) -> Apis:
    """The APIs over these parts."""
    memory = MemoryApi(
        auth=parts.auth,
        grants=parts.grants,
        memories=parts.memories,
        retriever=parts.retriever,
        blocks=parts.blocks,
        states=parts.states,
        triggers=parts.triggers,
        withdrawn=parts.lifecycle.withdraw,
        settings=parts.config.sessions,
        most=parts.config.limits.body_bytes,
        clock=clock,
    )
    cubes = CubesApi(
        auth=parts.auth,
        cubes=parts.cubes,
        grants=parts.grants,
        receipts=parts.receipts,
        lifecycle=parts.lifecycle,
        settings=parts.config.sessions,
        most=parts.config.limits.body_bytes,
    )
    graph = GraphApi(
        auth=parts.auth,
        grants=parts.grants,
        memories=parts.memories,
        graph=Graph(parts.database),
        walk=Walk(parts.database),
        settings=parts.config.sessions,
    )
    agenda = AgendaApi(
        auth=parts.auth,
        grants=parts.grants,
        agenda=Agenda(parts.database),
        settings=parts.config.sessions,
        clock=clock,
    )
    jobs = JobsApi(auth=parts.auth, grants=parts.grants, queue=parts.queue, settings=parts.config.sessions)
    feedback = FeedbackApi(
        auth=parts.auth,
        grants=parts.grants,
        database=parts.database,
        memories=parts.memories,
        turns=parts.turns,
        states=parts.states,
        triggers=parts.triggers,
        settings=parts.config.sessions,
        most=parts.config.limits.body_bytes,
        clock=clock,
    )
    forecasts = Forecasts(parts.database)
    scenes = ScenesApi(
        auth=parts.auth,
        grants=parts.grants,
        foresight=parts.foresight,
        forecasts=forecasts,
        predictor=Predictor(
            cubes=parts.cubes,
            turns=parts.turns,
            retriever=parts.retriever,
            forecasts=forecasts,
            clock=clock,
            urgent=Due(Agenda(parts.database)),
        ),
        rows=parts.rows,
        settings=parts.config.sessions,
    )
    tiers = TiersApi(
        auth=parts.auth,
        grants=parts.grants,
        cubes=parts.cubes,
        memories=parts.memories,
        census=Census(parts.database),
        retriever=parts.retriever,
        kept=parts.kept,
        blocks=parts.blocks,
        foresight=parts.foresight,
        states=parts.states,
        settings=parts.config.memory,
        reading=parts.config.sessions,
        clock=clock,
    )
    transfer = TransferApi(
        auth=parts.auth,
        grants=parts.grants,
        mover=Mover(parts.config, parts.database, parts.triggers, parts.embedder, clock),
        settings=parts.config.sessions,
        most=parts.config.limits.import_bytes,
    )
    adapters = AdaptersApi(
        auth=parts.auth,
        grants=parts.grants,
        adapters=parts.adapters,
        folder=parts.folder,
        queue=parts.queue,
        enabled=parts.config.parametric.enabled,
        settings=parts.config.sessions,
        most=parts.config.limits.body_bytes,
    )
    return Apis(
        memory=memory,
        cubes=cubes,
        feedback=feedback,
        graph=graph,
        agenda=agenda,
        jobs=jobs,
        usage=UsageApi(auth=parts.auth, keys=parts.keys, usage=parts.usage),
        transfer=transfer,
        scenes=scenes,
        tiers=tiers,
        adapters=adapters,
        responses=ResponsesApi(
            auth=parts.auth,
            names=parts.names,
            kept=parts.responses,
            chains=parts.chains,
            metering=parts.metering,
        ),
    )
