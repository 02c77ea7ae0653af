# The rest is the same in every job. It starts the processes, watches whether they get ahead, and alone decides whether
# the job is queued again. It needs bash 4.2 and Slurm's programs on the node; Python runs where the settings say.

export SLURM_TIME_FORMAT=standard # whatever the user prefers: times are compared below
index=${SLURM_ARRAY_TASK_ID:-0}
job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_}${SLURM_ARRAY_TASK_ID:-$SLURM_JOB_ID}
run=${runs[index]}
task=$folder/task-$index.json
ends=$folder/task-$index.ends # a line for each start that was queued again: its cause, and what the run had reached
output=$output_folder/${job}_%t_log.out
restarts=$(grep -c . "$ends" 2>/dev/null)
# Slurm itself queues a job again after a node failed; a successor of this job begins to count anew.
((${SLURM_RESTART_COUNT:-0} > ${restarts:=0})) && restarts=$SLURM_RESTART_COUNT
began=$(date +%s)
reason="" # why Slurm ended the job, where it did

echo "$start_line$((restarts + 1))"
scontrol update "JobId=$SLURM_JOB_ID" "JobName=${names[index]}" >/dev/null 2>&1

within() { # SECONDS COMMAND...: run a command that must not keep the script, such as one that writes to a dead disk
  local left=$((10 * $1)) process
  shift
  "$@" &
  process=$!
  while ((left-- > 0)) && kill -0 "$process" 2>/dev/null; do sleep 0.1; done
  kill -KILL "$process" 2>/dev/null
  ! kill -0 "$process" 2>/dev/null && wait "$process" 2>/dev/null
}

append() { printf '%s\n' "$2" >>"$1"; } # FILE TEXT

say() { # into the job's output and the run's log
  echo "$1"
  [[ -d $run ]] && within 20 append "$run/log.txt" "$(date '+%F %T,000') INFO detector.worker: $1"
}

field() { # NAME JSON: the value of a field of status.json
  local pattern="\"$1\":[[:space:]]*\"?([^],\"}[:space:]]*)" # the file has a line and an indent for each field
  [[ $2 =~ $pattern ]] && printf %s "${BASH_REMATCH[1]}"
}

status() { # status.json as text; empty where it cannot be read in time, or is of another job
  local text=""
  IFS= read -t 20 -r -d '' text < <(cat "$run/status.json" 2>/dev/null)
  [[ $(field job "$text") == "$job" ]] && printf %s "$text"
}

reached() { # the newest checkpoint, and the evaluations that are done
  local file newest=""
  for file in "$run"/checkpoints/*.pt; do [[ -e $file ]] && newest=${file##*/}; done
  printf %s "$newest"
  for file in "$run"/evals/*/record.json; do
    file=${file%/record.json}
    [[ -e $file/record.json ]] && printf ',%s' "${file##*/}"
  done
}

same_before() { # CAUSE REACHED: how many of the last starts ended so at the same point
  local count=0 cause point
  while read -r cause point; do
    if [[ " $1 " == *" $cause "* && $point == "$2" ]]; then count=$((count + 1)); else count=0; fi
  done < <(cat "$ends" 2>/dev/null)
  echo "$count"
}

why_ended() { # preempted, time or cancelled, where Slurm ends the job; empty where it does not, or does not say
  local said=""
  said=$(scontrol show job -o "$SLURM_JOB_ID" 2>/dev/null)
  [[ $said =~ StartTime=([^ ]*) ]] && local start=${BASH_REMATCH[1]}
  # Times are ISO 8601, of one clock: their order is that of the letters.
  if [[ $said =~ PreemptTime=([^ ]*) && ${BASH_REMATCH[1]} != None && ! ${BASH_REMATCH[1]} < $start ]]; then
    echo preempted
  elif [[ $said == *" Reason=TimeLimit "* ]]; then
    echo time
  elif [[ $said =~ JobState=([^ ]*) && ${BASH_REMATCH[1]} != RUNNING ]]; then
    echo cancelled
  fi
}

give_up() { # MESSAGE: note it in the run, as its processes no longer can
  say "$1"
  within 60 "${python[@]}" -m harness.slurm.batch.job_end fail "$folder" "$index" "$job" "$1"
  exit 1
}

queue_again() { # CAUSE WORDS
  local point said tries
  point=$(reached)
  if ((restarts >= max_requeues)); then
    give_up "$2; not queued again: it was $restarts times, the most that the cluster file allows (max_requeues)"
  fi
  trap '' TERM # Slurm ends a job that it is asked to queue again
  within 20 append "$ends" "$1 $point"
  say "$2; queued again ($((restarts + 1)) of at most $max_requeues)"
  if [[ -n $fallback && $SLURM_JOB_PARTITION != "$fallback" ]] &&
    (($(grep -c '^preempted ' "$ends" 2>/dev/null) >= fallback_after)); then
    say "from now on in partition $fallback, since it was preempted $fallback_after times"
    successor "--partition=$fallback" && exit 0
  fi
  for ((tries = 0; tries < 60; tries++)); do # a controller may be away for some minutes
    if said=$(scontrol requeue "$SLURM_JOB_ID" 2>&1); then
      sleep 3600 # until Slurm ends the script
      exit 0
    fi
    [[ $said == *"Unable to contact"* || $said == *"onnection"* || $said == *"imed out"* ]] || break
    sleep 5
  done
  successor && exit 0
  give_up "$2; it could not be queued again: $said"
}

successor() { # OPTION...: a new job for the same run, where this one cannot be queued again
  local said name clean=()
  while read -r name; do
    [[ $name == SLURM_CONF ]] || clean+=(-u "$name")
  done < <(compgen -e | grep -E '^(SLURM|SLURMD|SRUN|SBATCH|PMI|PMIX)_')
  said=$(env "${clean[@]}" sbatch --parsable "--array=$index" "$@" "$folder/job.sh" 2>&1) || return 1
  say "it goes on as job ${said%%;*}_$index"
}

# TERM comes at once where Slurm leaves no time, and at the begin of the time that it leaves (a partition's GraceTime).
# Then the processes save, and end by themselves.
on_term() {
  reason=$(why_ended)
  local state
  state=$(scontrol show job -o "$SLURM_JOB_ID" 2>/dev/null)
  [[ $state == *" JobState=RUNNING "* ]] && return
  case $reason in
    preempted) queue_again preempted "preempted, with no time to wait for" ;;
    time) after_time_limit "the time limit was there before the run had stopped" ;;
  esac
}
trap on_term TERM

after_time_limit() { # WORDS
  local point count
  point=$(reached)
  count=$(same_before time "$point")
  if ((count >= 2)); then
    give_up "$1; given up: $((count + 1)) starts in a row ended by their time limit at the same point (${point:-no checkpoint}). Raise time_minutes in the cluster file, or lower the profile's execution.checkpoint_every"
  fi
  queue_again time "$1"
}

after_failure() { # CAUSE WORDS: at most max_retries times from one point
  local point count
  point=$(reached)
  count=$(same_before "retry hang" "$point")
  if ((count >= max_retries)); then
    give_up "$2; given up: no progress in $count $( ((count == 1)) && echo retry || echo retries) (max_retries in the cluster file)"
  fi
  queue_again "$1" "$2; retry $((count + 1)) of at most $max_retries from here"
}

end_hung_step() { # WORDS: the processes' stacks, then their end
  local file rank text step_id steps=()
  declare -A sizes
  for file in "$folder/${job}"_*_log.out; do sizes[$file]=$(stat -c %s "$file" 2>/dev/null || echo 0); done
  # Of the steps, not of this script, and by the element's own name: one element of an array has the array's id for its
  # own, and that id means them all.
  for step_id in $(squeue -h --steps --jobs="$SLURM_JOB_ID" -o %i | grep -E "^$job\\.[0-9]+$" || echo "$job.0"); do
    steps+=("$step_id")
  done
  scancel --signal=QUIT "${steps[@]}" # each process prints its stacks
  sleep 5
  scancel --signal=KILL "${steps[@]}"
  say "$1; the stacks of its processes follow"
  for file in "${!sizes[@]}"; do
    rank=${file%_log.out}
    text=$(tail -c "+$((sizes[$file] + 1))" "$file" 2>/dev/null | head -c 20000)
    within 20 append "$run/log.txt" "rank ${rank##*_}:"$'\n'"$text"
  done
}

watch_step() { # PROCESS MARK: until it ends, or gets ahead no more (then 1). MARK: what the start before had reached
  # A run that has said its end has a silence, too: that of processes which hang as they leave.
  local now mark=$2 text since=$SECONDS limit=$start_seconds waited=0
  while kill -0 "$1" 2>/dev/null; do
    sleep 1 # a trap runs when it is over
    ((++waited % watch_seconds)) && continue
    text=$(status)
    now=$(field progressed "$text")
    if [[ -n $now && $now != "$mark" ]]; then
      mark=$now since=$SECONDS limit=$(field silence "$text") phase=$(field phase "$text")
      limit=${limit%%.*}
      ((limit > 0)) || limit=$start_seconds
    fi
    if ((SECONDS - since > limit)); then
      silent=$((SECONDS - since))
      return 1
    fi
  done
}

if [[ $watched == no ]]; then # the check of a cluster, which says itself what is wrong
  scontrol show job -o "$SLURM_JOB_ID" >"$folder/scontrol.txt" 2>&1
  "${step[@]}" "--output=$output" "${python[@]}" "${worker[@]}" "$task"
  exit
fi

silent=0
phase="" # what the run said last in this start
before=$(field progressed "$(status)")
"${step[@]}" "--output=$output" "${python[@]}" "${worker[@]}" "$task" &
process=$!
if watch_step "$process" "$before"; then
  wait "$process"
  code=$?
else
  lasted="$((silent / 60)) min $((silent % 60)) s"
  case $phase in
    done | stopped | failed) words="$phase, but its processes did not end for $lasted" ;;
    *) words="no progress for $lasted" ;;
  esac
  end_hung_step "$words"
  for ((left = 60; left > 0; left--)); do # a process may hang in the kernel
    kill -0 "$process" 2>/dev/null || break
    sleep 1
  done
  [[ $words == "no progress"* ]] && after_failure hang "$words"
  code=137
fi
text=$(status)
# A run that is done stays so, however its processes ended.
if ((code == 0)) || [[ $(field phase "$text") == done && $(field progressed "$text") != "$before" ]]; then
  grep -q "\"${folder##*/}\"" "$run/claim.json" 2>/dev/null && rm -f "$run/claim.json" # nobody trains it any more
  exit 0
fi

ended=$(why_ended)
[[ $ended == preempted || $ended == time ]] && reason=$ended
if [[ $reason == preempted ]]; then
  queue_again preempted "preempted"
elif [[ $reason == time || ($(field phase "$text") == stopped && $(field left "$text") == time) ]]; then
  after_time_limit "the time was nearly up"
elif [[ $ended == cancelled || $reason == cancelled ]]; then
  exit "$code"
fi
# A process failed, or somebody ended the step alone. Whether another start may help is for Python to say.
verdict=$(timeout -k 5 120 "${python[@]}" -m harness.slurm.batch.job_end judge "$folder" "$index" "$job" "$code" "$began")
case $verdict in
  *"retry: "*) after_failure retry "${verdict##*retry: }" ;;
  *"end: "*) exit "$code" ;;
esac
give_up "the processes ended with exit code $code, and '${python[*]}' could not say why"
