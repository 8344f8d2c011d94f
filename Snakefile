# The chain: images - index - pretext - features - cluster - label - student - evaluate - report.
#   snakemake --cores all                                  the demo on embedded images
#   snakemake --cores all --configfile config/mine.yaml    your own
# A plain `include` of workflow/Snakefile would leave this file without a default target, silently.

# Your own file replaces the demo; Snakemake would merge the two.
if not set(config) - {"results"}:

    configfile: "config/demo.yaml"


module ssltransfer:
    snakefile:
        "workflow/Snakefile"
    config:
        config


use rule * from ssltransfer
