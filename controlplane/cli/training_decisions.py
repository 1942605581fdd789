"""`lineside training approve | reject | judgement | judgements`: how candidates did, and who lets them go out."""

from cyclopts import App

from controlplane.cli.promotion_view import promotion_columns, show_promotion
from controlplane.cli.session import SessionArgument


def approve(run: str, /, *, reason: str = "", session: SessionArgument) -> None:
    """Let a proposed candidate be published, and go out as the model's training policy says.

    Parameters
    ----------
    run
        The training run's id.
    reason
        Why.
    """
    show_promotion(session.printer, session.client.promotions.approve(run, reason=reason))


def reject(run: str, /, *, reason: str, session: SessionArgument) -> None:
    """Let a proposed candidate not go out, or an approved one no further.

    Parameters
    ----------
    run
        The training run's id.
    reason
        Why; whoever asks later is told.
    """
    show_promotion(session.printer, session.client.promotions.reject(run, reason=reason))


def judgement(run: str, /, *, session: SessionArgument) -> None:
    """Show how a run's candidate did against the champion on the holdout, and what became of it.

    Parameters
    ----------
    run
        The training run's id.
    """
    show_promotion(session.printer, session.client.promotions.get(run))


def judgements(*, model: str = "", limit: int | None = None, session: SessionArgument) -> None:
    """List judgements, newest first.

    Parameters
    ----------
    model
        Only those of this model.
    limit
        At most this many.
    """
    found = session.client.promotions.list(model=model, limit=limit)
    session.printer.messages(found, promotion_columns(session.printer.now), none="no run was judged")


def add_to(app: App) -> None:
    """Put the commands into `lineside training`."""
    app.command(approve, help_epilogue="Example: lineside training approve r3k9 --reason 'poly cells, checked by hand'")
    app.command(
        reject, help_epilogue="Example: lineside training reject r3k9 --reason 'wrong labels of the night shift'"
    )
    app.command(judgement, help_epilogue="Example: lineside training judgement r3k9")
    app.command(judgements, help_epilogue="Example: lineside training judgements --model solar")
