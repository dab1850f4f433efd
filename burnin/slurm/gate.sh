#!/bin/sh
# Prolog or epilog of Slurm: a burn-in of a minute that reports and never fails the prolog, whatever happens to
# overproof itself: not installed, crashed, hung, or a full disk. Copy it, set the lines below and name it in
# slurm.conf (Prolog= or Epilog=), with PrologFlags=Alloc, or srun gives up before a prolog that takes longer than
# MessageTimeout is done, and PrologEpilogTimeout above LIMIT_S plus 40. For jobs that have the node
# for themselves: those that share one would be disturbed. slurmd drops what a prolog says, so it goes to a file.
OVERPROOF=${OVERPROOF:-/opt/overproof/bin/overproof}
OUT=${OVERPROOF_OUT:-/var/tmp/overproof}
LIMIT_S=${OVERPROOF_LIMIT_S:-180}
ENFORCE=${OVERPROOF_ENFORCE:-} # 1: a FAIL, and nothing else, fails the prolog, and Slurm drains the node

LOG=$OUT/gate.log
mkdir -p "$OUT" 2>/dev/null
(: >>"$LOG") 2>/dev/null || LOG=/dev/null
printf 'job %s: ' "${SLURM_JOB_ID:-none}" >>"$LOG" 2>/dev/null
timeout -k 10 "$((LIMIT_S + 20))" "$OVERPROOF" burnin gate --within-s "$LIMIT_S" --out "$OUT" \
  ${ENFORCE:+--enforce} </dev/null >/dev/null 2>>"$LOG"
CODE=$?
[ -n "$ENFORCE" ] && [ "$CODE" -eq 1 ] && exit 1
exit 0
