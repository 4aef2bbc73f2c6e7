"""Solvers of the ODE, and which is taken when.

`flow.transform` asks the compiled engine first (`flow.compiled`), which solves without gradients: a perceptron that
fits the caches, on the CPU, by dopri5 or bosh3. All else goes through torchdiffeq (`ode`): gradients, fields of one's
own, sparse fields, fixed steps, regularisers; `shared` does so on the steps of a whole batch where several processes
have a share of it each. A training with `solve.hold_grid` walks steps that it chose before (`training.held_steps`), by
the engine or else by `held_grid`, whose evaluations and gradients are those of `mlp_kernel`. The page "Which solve is
taken when" of the documentation has the conditions.
"""
