"""Choosing routes by the official score, on truth that did not choose them (see ``ensemble.tune``).

``space``       what may be chosen for a class: sources, thresholds, objects, and which of two routes is simpler
``candidates``  which sources may be tried for a class
``ground``      the truth, cut into folds with a gap, and what a route is worth on each of them
``search``      the routes that are tried: all of them where a pass tells, else those that Optuna proposes
``select``      which of them is kept: what gains on folds that did not choose it, else the simpler
``written``     the tuned recipe, for people and for the builder
"""
