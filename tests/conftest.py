"""What all tests share: examples that do not depend on the day or on a busy machine."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "fedalt", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("fedalt")
