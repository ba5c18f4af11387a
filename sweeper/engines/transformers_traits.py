"""What transformers can do, and whether a node has it: known without importing it, nor torch."""

from sweeper.engines.access import hub_environment, library_fault, model_fault
from sweeper.engines.transformers_quantization import quantization_fault
from sweeper.engines.transformers_speculation import assistance, draft_of
from sweeper.errors import Infeasible
from sweeper.spec import Settings


class TransformersTraits:
    """The capabilities of `TransformersEngine`."""

    streams = True
    continuous = True
    needs_gpu = False
    libraries = ("torch", "transformers")

    @classmethod
    def isolated(cls, settings: Settings) -> bool:
        """A real engine lives in a process of its own."""
        return True

    @classmethod
    def preflight(cls, settings: Settings) -> str | None:
        """Whether it is installed, and the model to be had: a folder, the cache, or the hub.

        The draft as well, and whether transformers speculates as asked.
        """
        if missing := library_fault("transformers", cls.libraries):
            return missing
        if fault := quantization_fault(settings.engine.quantization):
            return fault
        try:
            assistance(settings.engine)
            draft = draft_of(settings)
        except Infeasible as error:
            return str(error)
        variables = hub_environment(settings)
        fault = model_fault(settings.model, variables)
        if fault is not None or draft is None:
            return fault
        of_draft = model_fault(draft, variables)
        return of_draft and f"engine.speculative.{of_draft.replace('model.id', 'model', 1)}"
