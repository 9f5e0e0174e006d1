"""Conversion of other libraries' tables and tensors to NumPy arrays; the module imports none of these libraries."""
from __future__ import annotations

import sys
from typing import Any

from fastnet.base import hints


def plain(who: object, name: str, value: Any) -> Any:
    """Convert pandas tables and PyTorch tensors to arrays, and return all other objects unchanged, for `np.asarray`.

    Raises
    ------
    TypeError
        For a table with columns that hold no numbers, or a tensor that is not in this computer's memory.
    """
    torch: Any = sys.modules.get("torch")
    if torch is not None and isinstance(value, getattr(torch, "Tensor", ())):
        return _from_torch(who, name, value, torch)
    pandas: Any = sys.modules.get("pandas")
    pandas = pandas if hasattr(pandas, "api") else None  # not while it is being imported
    if pandas is not None and isinstance(value, pandas.DataFrame):
        return _from_table(who, name, value, pandas)
    if pandas is not None and isinstance(value, (pandas.Series, pandas.Index, pandas.api.extensions.ExtensionArray)):
        return _from_column(pandas.Series(value), pandas)
    return value


def _from_torch(who: object, name: str, tensor: Any, torch: Any) -> Any:
    if tensor.device.type != "cpu" or tensor.layout != torch.strided:
        where = f"on the device {tensor.device}" if tensor.device.type != "cpu" else f"of layout {tensor.layout}"
        what = ".cpu()" if tensor.device.type != "cpu" else ".to_dense()"
        raise TypeError(f"{who}: {name} must be an array or a dense tensor on the CPU, got a tensor {where}. "
                        f"Use {name}{what}.")
    tensor = tensor.detach().resolve_conj().resolve_neg()
    return (tensor.float() if tensor.dtype is torch.bfloat16 else tensor).numpy()


def _from_table(who: object, name: str, table: Any, pandas: Any) -> Any:
    other = [column for column, dtype in table.dtypes.items() if not pandas.api.types.is_numeric_dtype(dtype)]
    if other:
        columns = ", ".join(repr(column) for column in other[:5]) + (", ..." if len(other) > 5 else "")
        raise TypeError(f"{who}: {name} must hold numbers only, got a table whose columns {columns} hold something else. "
                        + hints.not_numeric_columns(name, table, pandas))
    if any(_nullable(dtype, pandas) for dtype in table.dtypes):
        return table.to_numpy(float, na_value=float("nan"))
    return table.to_numpy(float) if len(set(table.dtypes)) > 1 else table.to_numpy()


def _from_column(column: Any, pandas: Any) -> Any:
    if not _nullable(column.dtype, pandas):
        return column.to_numpy()
    if column.hasnans:
        return column.to_numpy(float, na_value=float("nan"))
    return column.to_numpy(getattr(column.dtype, "numpy_dtype", None))  # before pandas 2.2, Int64 would become objects


def _nullable(dtype: Any, pandas: Any) -> bool:
    return isinstance(dtype, pandas.api.extensions.ExtensionDtype) and pandas.api.types.is_numeric_dtype(dtype)
