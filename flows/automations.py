"""What the Prefect server does by itself when a flow run's process, or its worker, can no longer say how the run ended.

Two automations, which set-up creates and keeps as they are stated here:

- a run whose heartbeat stops is marked Crashed. The heartbeat comes from the flow's own process, every
  `PREFECT_FLOWS_HEARTBEAT_FREQUENCY` seconds: so it stops whichever way that process ends. A process that has lost its worker
  could neither be cancelled nor be waited for; it ends itself (`flows/lifetime.py`), and with it its heartbeat;
- when a run is marked Crashed or Cancelled the deployment `gkd/tidy` tells MLflow and sweeps. A run of `tidy` itself starts none.
"""

from collections.abc import Iterable
from datetime import timedelta
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState, RunDeployment
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.exceptions import ObjectNotFound

from flows.server import HEARTBEAT_SECONDS

FLOW = "gkd"
TIDY = "tidy"
SILENCE_SECONDS = 3 * HEARTBEAT_SECONDS  # one heartbeat may be late and one lost
HEARTBEAT = "prefect.flow-run.heartbeat"
SILENT = f"no heartbeat for {SILENCE_SECONDS} s"
NOTHING_TO_DO = "NothingToDo"  # what a flow may call its end, Completed in type, so that lists and terminals say it
ENDS = ("Completed", "Failed", "Cancelled", "Crashed", NOTHING_TO_DO)
# A run that waits has no process, and so no heartbeat.
WAITS = ("Paused", "Suspended", "Scheduled", "AwaitingRetry", "Late", "AwaitingConcurrencySlot")


def ensure_automations() -> list[str]:
    """Create the automations on the server that PREFECT_API_URL names, or bring them up to date.

    One that somebody switched off stays off. Deployments come first: without `gkd/tidy` only the heartbeat's automation is made.

    Returns:
        the names of those that were created or changed; none where all is as it should be.
    """
    with get_client(sync_client=True) as client:
        return [automation.name for automation in _wanted(client) if _ensure(client, automation)]


def heartbeat_automation() -> AutomationCore:
    """Marks a run Crashed that gave a heartbeat once, and then for `SILENCE_SECONDS` neither another nor an end."""
    return AutomationCore(
        name="gkd: no heartbeat, so crashed",
        description=f"A flow run without a heartbeat for {SILENCE_SECONDS} s is marked Crashed: its process is gone.",
        trigger=EventTrigger(
            after={HEARTBEAT},
            expect={HEARTBEAT, *_state_events((*ENDS, *WAITS))},
            match={"prefect.resource.id": "prefect.flow-run.*"},
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=SILENCE_SECONDS),
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.CRASHED,
                name="Crashed",
                message=f"{SILENT}: its process is gone; run it again, it goes on where it was",
            )
        ],
    )


def tidy_automation(tidy: UUID) -> AutomationCore:
    """Runs the deployment `gkd/tidy` after a run of another deployment of `gkd` crashed or was cancelled."""
    return AutomationCore(
        name="gkd: tidy after a crash or a cancellation",
        description="Runs whose process could not record its end in MLflow are ended there, and old workspaces are removed.",
        trigger=EventTrigger(
            expect=_state_events(("Crashed", "Cancelled")),
            match={"prefect.resource.id": "prefect.flow-run.*"},
            match_related=[
                {"prefect.resource.role": "flow", "prefect.resource.name": FLOW},
                # Not tidy's own runs, or a tidy that crashes would start the next.
                {"prefect.resource.role": "deployment", "prefect.resource.name": f"!{TIDY}"},
            ],
            for_each={"prefect.resource.id"},
            posture=Posture.Reactive,
            threshold=1,
            within=timedelta(0),
        ),
        actions=[RunDeployment(source="selected", deployment_id=tidy)],
    )


def _state_events(names: Iterable[str]) -> set[str]:
    return {f"prefect.flow-run.{name}" for name in names}


def _wanted(client: SyncPrefectClient) -> list[AutomationCore]:
    try:
        tidy = client.read_deployment_by_name(f"{FLOW}/{TIDY}")
    except ObjectNotFound:
        return [heartbeat_automation()]
    return [heartbeat_automation(), tidy_automation(tidy.id)]


def _ensure(client: SyncPrefectClient, wanted: AutomationCore) -> bool:
    """Whether anything had to be done."""
    found = client.read_automations_by_name(wanted.name)
    if not found:
        client.create_automation(wanted)
        return True
    wanted = wanted.model_copy(update={"enabled": found[0].enabled})
    if _content(found[0]) == _content(wanted):
        return False
    client.update_automation(found[0].id, wanted)
    return True


def _content(automation: AutomationCore) -> dict[str, object]:
    return automation.model_dump(include={"description", "trigger", "actions"})
