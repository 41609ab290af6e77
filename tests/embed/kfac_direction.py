"""One step of exact K-FAC from its definition, in dense fp64 by numpy: the oracle of train.py and train_torch.py."""
import numpy as np

OPTIONS = dict(method="kfac", step="plain", momentum=0, factor_update_steps=1, inv_update_steps=1, average="norm",
               damping_mode="relative-mean", apply="replicated", sample_rows=0)


def factor(rows, n_examples, has_bias=False):
    """E[r r^T], of rows (any, n) that come from n_examples, with a constant 1 appended when there is a bias."""
    x = np.asarray(rows, np.float64)
    if has_bias:
        x = np.hstack([x, np.ones((len(x), 1))])
    return x.T @ x / n_examples


def damped_power(M, damping, exponent):
    """(M + damping * mean eigenvalue * I)^-exponent"""
    eigenvalues, V = np.linalg.eigh(M)
    return V * (eigenvalues + damping * np.trace(M) / len(M)) ** -exponent @ V.T


def direction(A, G, gradient, damping, exponent):
    """Of gradient (d_out, d_in [+ 1])."""
    return damped_power(G, damping, exponent) @ np.asarray(gradient, np.float64) @ damped_power(A, damping, exponent)


def distance(x, y):
    return np.linalg.norm(np.asarray(x, np.float64) - y) / np.linalg.norm(y)
