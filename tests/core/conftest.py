"""For the walks: how long an example takes says nothing on a machine that does other things as well."""

from hypothesis import HealthCheck, settings

settings.register_profile("calm", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile(
    "brief", parent=settings.get_profile("calm"), max_examples=20, derandomize=True, database=None
)
settings.load_profile("calm")
