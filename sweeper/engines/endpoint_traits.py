"""What an endpoint can do, and whether a node can use it; nothing is started or loaded."""

import os
import shutil

from sweeper.engines.access import absent
from sweeper.engines.endpoint_options import PLACE, read_options
from sweeper.errors import StudyError
from sweeper.spec import Settings


class EndpointTraits:
    """The capabilities of `EndpointEngine`."""

    streams = True
    continuous = True
    needs_gpu = False
    """Whether its server does is not known."""
    libraries = ("aiohttp",)

    @classmethod
    def isolated(cls, settings: Settings) -> bool:
        """Always: a server lives in processes of its own, and a guardian ends them."""
        return True

    @classmethod
    def preflight(cls, settings: Settings) -> str | None:
        """Whether the command is there, and the variable that holds the key."""
        if missing := absent(cls.libraries):
            return f"engine.kind: endpoint needs {' and '.join(missing)}, not installed here"
        try:
            options = read_options(settings)
        except StudyError as error:
            return str(error)
        name = options.api_key_env
        if name is not None and not os.environ.get(name):
            return f"{PLACE}.api_key_env: the variable {name} is not set in the environment"
        if options.command is None:
            return None
        program = options.words(settings, 0)[0]
        path = settings.engine.env.get("PATH", os.environ.get("PATH"))
        if shutil.which(program, path=path) is None:
            return f"{PLACE}.command: there is no program {program} here: install it, or its path"
        return None
