"""``allocsim compare``: what if this service used another allocator?"""

from __future__ import annotations

import json
from pathlib import Path

import click

from experiments.errors import InputError
from experiments.progress import announce_compile

LISTS = ("first-fit", "next-fit", "best-fit", "segregated-fit")
ORDERS = ("address", "lifo")
MODELS = (
    *("go1.14", "go1.19", "go1.27", "tcmalloc", "bump", *LISTS),
    *(f"{policy}:{order}" for policy in LISTS for order in ORDERS),
)


@click.command("compare", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@click.option("--scenario", default="api-service", show_default=True, help="A shipped scenario, or a TOML file.")
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Change a value of the scenario; repeatable.")
@click.option("--seed", type=click.IntRange(0, (1 << 64) - 1), metavar="N", help="Another seed than the scenario's.")
@click.option("--thread-machine", default="epyc-2core", show_default=True, help="Prices of threads: a name, or a file.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
@click.option("-o", "--output", metavar="DIR", help="Write tables and plot to DIR, a new directory.")
def compare(
    models: tuple[str, ...],
    scenario: str,
    sets: tuple[str, ...],
    seed: int | None,
    thread_machine: str,
    as_json: bool,
    output: str | None,
) -> None:
    """Run one scenario on several allocators, the same stream of operations for all, and show them side by side.

    MODEL is go1.14, go1.19, go1.27, tcmalloc, bump, first-fit, next-fit, best-fit or segregated-fit; the four lists may
    say how they are sorted: first-fit:address (so if nothing is said) or first-fit:lifo.
    """
    from workloads.scenario import ScenarioError, load

    for model in models:
        if model not in MODELS:
            raise InputError(f"{model}: no such model; known are {', '.join(MODELS)}")
    if output is not None and Path(output).exists():
        raise InputError(f"{output}: is there already; name a new directory")
    try:
        chosen = load(scenario, sets, seed)
    except ScenarioError as error:
        raise InputError(str(error)) from None
    versions = [model for model in models if model.startswith("go")]
    if 0 < len(versions) < len(models) and chosen.machine != thread_machine:
        line = f"{', '.join(versions)}: prices of {chosen.machine}, the others: prices of {thread_machine}"
        click.echo(f"allocsim: warning: two machines are compared too ({line})", err=True)
    announce_compile("the allocators", "two minutes", ("pump", "thread_pump", "lock_pump", "streams_fill"))
    from experiments import compare as experiment

    found = experiment.compare(models, chosen, thread_machine, lambda model: click.echo(f"running {model}", err=True))
    if as_json:
        click.echo(json.dumps(experiment.as_json(chosen, found), indent=2))
    else:
        click.echo("\n".join(experiment.report(chosen, found)))
    if output is not None:
        for line in experiment.write(found, Path(output)):
            click.echo(line, err=True)
