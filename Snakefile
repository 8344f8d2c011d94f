# The pipeline: images - index - pretext - features - cluster - label - student - evaluate - report.
#   snakemake --cores all                                  the demo on synthetic images
#   snakemake --cores all --configfile config/mine.yaml    your own
# With a plain `include` of workflow/Snakefile this file would have no default target.

# Use the demo only without a --configfile: Snakemake would merge the two.
if not workflow.configfiles and not set(config) - {"results", "table"}:

    configfile: f"{workflow.basedir}/config/demo.yaml"


module ssltransfer:
    snakefile:
        "workflow/Snakefile"
    config:
        config


use rule * from ssltransfer
