// Takes the token from the address, where it comes after the # and is never sent, or from the form.

import { post, ServerError } from "./api.js";

const field = document.getElementById("token");
const problem = document.getElementById("problem");

async function open(token) {
  try {
    await post("/playground/api/session", { token });
    location.replace("/playground");
  } catch (error) {
    if (!(error instanceof ServerError)) throw error;
    problem.textContent = error.message;
    field.select();
  }
}

document.getElementById("login").addEventListener("submit", (event) => {
  event.preventDefault();
  open(field.value.trim());
});

const token = new URLSearchParams(location.hash.slice(1)).get("token");
if (token) {
  history.replaceState(null, "", location.pathname);
  open(token);
}
