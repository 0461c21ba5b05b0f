"""fedalt's federated PCA on its synthetic set: 20 sites, all of them in every round.

``pca-grassmann`` repeats the consensus phase (five Riemannian steps with a dual a site, the
polar mean at the server), ``pca-covariance`` the one-shot summary (a covariance a site, merged
and decomposed by the server), so the server's share is in a client-round's cost.
"""

from measure import Meter

METER = Meter()

from typing import Any  # noqa: E402

from options import read_options  # noqa: E402

SCHEDULES = {
    "pca-grassmann": "{chain: [standardise, curvature, {repeat: {of: consensus}}]}",
    "pca-covariance": "{chain: [standardise, {repeat: {of: summary}}]}",
}
ROUNDS = 20


def main() -> None:
    """Run and print one line of JSON; the accuracy is the residual's ratio to central PCA."""
    options = read_options(str(__doc__), list(SCHEDULES))
    options.add_argument("--engine", action="append", default=[], metavar="KEY=VALUE")
    options.add_argument("--name", default="fedalt", help="the engine's name in the result")
    chosen = options.parse_args()
    from fedalt_run import run

    from fedalt.scenario import find_scenario
    from fedalt.scenarios.federated_pca.task import FederatedPCA

    class Judged(FederatedPCA):
        """Keeps the final arrays, which are judged when the clock has stopped."""

        def evaluate(self, arrays: Any) -> dict[str, float]:
            """Keep the arrays."""
            self.final = dict(arrays)
            return {}

    rounds = chosen.rounds or ROUNDS
    overrides = [
        "task.data=synthetic",
        "task.rank=6",
        f"schedule={SCHEDULES[chosen.work]}",
        f"rounds={rounds}",
        f"evaluate.server_every={rounds}",
        f"checkpoint.every={rounds}",
        *(f"engine.{pair}" for pair in chosen.engine),
    ]
    config = find_scenario("federated_pca").config(overrides)
    with METER.reading_data():
        task = Judged(**{key: value for key, value in config["task"].items() if key != "_target_"})
    facts = run(config, task, METER)
    ratio = FederatedPCA.evaluate(task, task.final)["residual_ratio"]
    facts |= {"source": task.records.name, "order": "whole", "measure": "residual ratio"}
    METER.tell(chosen.name, chosen.work, len(task.sites), ratio, **facts)


if __name__ == "__main__":
    main()
