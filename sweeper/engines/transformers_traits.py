"""What transformers can do, and whether a node has it: known without importing it, nor torch."""

from sweeper.engines.access import hub_environment, library_fault, model_fault
from sweeper.spec import Settings


class TransformersTraits:
    """The capabilities of `TransformersEngine`."""

    streams = True
    continuous = False
    needs_gpu = False
    libraries = ("torch", "transformers")

    @classmethod
    def isolated(cls, settings: Settings) -> bool:
        """A real engine lives in a process of its own."""
        return True

    @classmethod
    def preflight(cls, settings: Settings) -> str | None:
        """Whether it is installed, and the model to be had: a folder, the cache, or the hub."""
        missing = library_fault("transformers", cls.libraries)
        return missing or model_fault(settings.model, hub_environment(settings))
