"""One pass: observe, read, fold, decide, record, act."""

from controller.reconcile.parts import Parts
from controller.reconcile.reconciler import Outcome, Reconciler

__all__ = ["Outcome", "Parts", "Reconciler"]
