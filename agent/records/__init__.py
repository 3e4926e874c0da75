"""Everything that stays on disk and on dashboards."""
