"""One pass: observe, read, fold, decide, record, act."""

from controller.reconcile.reconciler import Outcome, Parts, Reconciler

__all__ = ["Outcome", "Parts", "Reconciler"]
