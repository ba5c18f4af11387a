"""What every test shares: no test calls home, Ctrl-C is heard, and random examples repeat."""

import os
import signal

from hypothesis import Phase, settings

os.environ.update(DO_NOT_TRACK="1", HF_HUB_OFFLINE="1", RAY_USAGE_STATS_ENABLED="0")
# A shell starts its background jobs with Ctrl-C ignored, which every process of theirs inherits.
signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("repeatable", deadline=None, derandomize=True, print_blob=True)
settings.register_profile(
    "unshrunk", settings.get_profile("repeatable"), phases=(Phase.explicit, Phase.generate)
)
settings.register_profile("quick", settings.get_profile("repeatable"), max_examples=25)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))
