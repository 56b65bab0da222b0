"""What a run may say: the schema of a config, its checks, and presets. Imports no torch, no ray, no NumPy.

Read: `schema` (the sections, each in a `*_config` module), then `load`, the way of a file to a `Config`: `yaml_source`
(lines), `merge` (includes, overrides), `mistakes` (pydantic's complaints in plain words), `checks` (keys that
contradict each other), `choices` (what is chosen by name). Beside them: `resume` (what a resumed run may change),
`errors` (how this product fails), `outputs` (where a command may write).
"""
