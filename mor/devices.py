"""Peak throughput of the devices that runs are priced on. Plain Python, no torch."""

from __future__ import annotations

# Dense bfloat16 TFLOP/s from the vendors' data sheets; `cpu` is fp32 of one core (AVX-512 server).
PEAK_TFLOPS = {
    "cpu": 0.06,
    "a100": 312.0,
    "l40s": 362.0,
    "h100": 989.0,
    "h200": 989.0,
    "gh200": 989.0,
    "b200": 2250.0,
    "mi300x": 1307.0,
    "rtx4090": 165.0,
}


def device_key(device_name: str) -> str | None:
    """The entry of a device by its full name, e.g. "NVIDIA H100 80GB HBM3"; None if unknown."""
    name = device_name.lower().replace(" ", "").replace("-", "")
    return max((key for key in PEAK_TFLOPS if key in name), key=len, default=None)


def peak_tflops(device_name: str) -> float | None:
    """Peak of a device by its full name; None if unknown."""
    key = device_key(device_name)
    return PEAK_TFLOPS[key] if key else None
