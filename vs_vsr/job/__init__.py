"""One file upscaled in parts that a power cut cannot lose: plan, part, join.

    plan.json --+-- part 0 --+
                +-- part 1 --+-- join --> the file
                +-- part 2 --+

A part needs only the plan and the source, so parts can be made in any order, on any machine, and
twice. Nothing here is imported by the filters.
"""
