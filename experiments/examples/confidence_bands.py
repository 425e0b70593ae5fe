"""What GOGC costs a service's tail and buys in CPU, with and without a memory limit: from sweep to picture."""

from matplotlib.figure import Figure

from experiments.pictures import curves
from experiments.sweeps import Sweep, run_sweep

gogc, limits = [25, 50, 100, 200, 400], ["off", "24MiB"]
shown = {"gc-cpu": (100, "GC CPU, %"), "heap-peak": (2**-20, "heap peak, MiB"), "response-p99": (1e3, "p99, ms")}


def main(folder: str = "bands", replications: int = 10, duration: str = "100ms") -> None:
    settings = {"run.duration": duration}
    sweep = Sweep("api-service", {"gogc": gogc, "memory_limit": limits}, replications=replications, set=settings)
    results = run_sweep(sweep, folder)  # on all cores; given again it goes on where it was ended
    figure = Figure(figsize=(12, 4), layout="constrained")
    for panel, (metric, (factor, label)) in zip(figure.subplots(1, len(shown)), shown.items(), strict=True):
        for curve in curves(results, metric, "gogc"):
            x = [str(value) for value in curve.x]
            panel.plot(x, curve.y * factor, "o-", label=curve.label)
            panel.fill_between(x, curve.low * factor, curve.high * factor, alpha=0.2)
        panel.set(xlabel="GOGC", ylabel=label)
    panel.legend()
    figure.savefig(f"{folder}.svg")


if __name__ == "__main__":
    main()
