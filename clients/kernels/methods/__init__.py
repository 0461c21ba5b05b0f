"""Methods against forgetting, beside rehearsal by the environment: settings of gradient training.

Each is switched on by its params in a phase that views a stream of tasks, in any environment,
and all may be used together: penalties add up, and a batch is first joined by remembered rows,
then distilled, then projected.
"""
