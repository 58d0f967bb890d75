"""Persistent subscriptions: groups of consumers that share the events of a stream (section 9).

What a group does, without sockets, database or clock of its own:

    settings    how a group works
    messages    an event on its way to a consumer
    buffers     events waiting for a consumer
    consumers   one connection's share of a group
    strategies  who gets the next event
    progress    which events are done
    machine     all of that together: the life of one group

What connects it to the node:

    reading     messages from stored events
    storage     the groups' own streams: configuration, checkpoints, parked events
    requests    what clients send and get
    hosted      one group in a node
    changes     how groups are made and ended
    service     all groups of a node
"""
