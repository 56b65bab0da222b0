"""Checks a cluster before anything is trained on it: every node is asked about itself, then about the others.

Read: `examine` (the whole way), `on_node` (what runs on every node), then what a node says of itself (`node_facts`,
`interfaces`), of others (`reaching`), and what ranks measure (`ranks`). `findings` is what comes out; what is made of
the answers is in `nodes`, `versions`, `machines`, `gpus`,
`ray_settings`, `network`, `folders`, `bandwidth`. What runs on the nodes is sent to
them by value and needs the standard library alone: a node that lacks this project, or torch, can say so.
"""
