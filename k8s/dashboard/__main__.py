"""Writes the dashboard that the component monitoring brings.

python -m k8s.dashboard
"""

from __future__ import annotations

from pathlib import Path

from k8s.dashboard.build import as_json

PATH = Path(__file__).resolve().parents[1] / "components/monitoring/dashboards/longspan.json"

if __name__ == "__main__":
    PATH.write_text(as_json(), "utf-8")
