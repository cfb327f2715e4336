//! Which models a run asks, and how they are reached: a name of a definition or a caller, resolved by the settings.
//!
//! The first model is what was asked for, so a run without it, or without its provider's key, is a `launch_error`
//! that names the place and the remedy. The others stand in for it; one that cannot be had is left out, and told of
//! in the log, for a run that could be carried out is not to fail for its understudy.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Core;
use super::doctor::{Check, some};
use super::task_input::secret;
use crate::agentloop::brief::Candidate;
use crate::config::{Env, Settings};
use crate::model::{
    Agent, Executor, Failure, FailureCode, KnownModel, Llm, Price, SecretSource, known_model,
};
use crate::secret::SecretString;

/// How the variables are named that hold keys of providers; nothing that a definition sets is named so.
const KEY_PREFIX: &str = "MATINS_KEY_";

/// The models of a run, in the order in which they are asked.
#[derive(Debug)]
pub struct Models {
    /// At least one; none twice.
    pub candidates: Vec<Candidate>,
    /// Keys of their providers, by the variables that [`Candidate::key_env`] names.
    pub keys: BTreeMap<String, SecretString>,
}

impl Core {
    /// The models that a run asks: `asked` by its caller, else that of the definition, then its understudies.
    ///
    /// # Errors
    /// `launch_error`, where the first one has no provider or no key.
    pub fn models(&self, llm: &Llm, asked: Option<&str>) -> Result<Models, Failure> {
        models(&self.settings(), &self.env, llm, asked)
    }
}

fn models(settings: &Settings, env: &Env, llm: &Llm, asked: Option<&str>) -> Result<Models, Failure> {
    let first = asked.or(llm.model.as_deref()).unwrap_or(Llm::DEFAULT_MODEL);
    let mut models = Models { candidates: Vec::new(), keys: BTreeMap::new() };
    let launch_error = |why| Failure::new(FailureCode::LaunchError, why);
    models.add(settings, env, first).map_err(launch_error)?;
    for name in &llm.fallback {
        if let Err(why) = models.add(settings, env, name) {
            tracing::warn!(model.name = %name, "a model of `fallback` is left out: {why}");
        }
    }
    Ok(models)
}

/// Whether the built-in agents can ask their models; `None`: there are none.
pub(super) fn check(settings: &Settings, env: &Env, agents: &[Arc<Agent>]) -> Option<Check> {
    let mut checked = 0;
    let mut without = Vec::new();
    for agent in agents {
        let Executor::Llm(llm) = &agent.executor else { continue };
        checked += 1;
        if let Err(failure) = models(settings, env, llm, None) {
            without.push((agent.id.to_string(), failure.explanation));
        }
    }
    let found = without.first().map(|(_, why)| why.clone());
    let without: Vec<String> = without.into_iter().map(|(id, _)| id).collect();
    Some(match found {
        None if checked == 0 => return None,
        None => Check::ok("models", format!("{checked} built-in agents have a model and its key")),
        Some(why) => {
            let found = format!("{} cannot ask a model: {why}", some(without));
            Check::warn("models", found, "until then each of its runs ends `launch_error`")
        }
    })
}

impl Models {
    /// Adds the model of a name: an alias of the settings, or provider/model. The error is a sentence.
    fn add(&mut self, settings: &Settings, env: &Env, name: &str) -> Result<(), String> {
        let full = settings.models.get(name).map_or(name, String::as_str);
        let Some((provider, model)) = full.split_once('/') else {
            return Err(no_model(settings, name));
        };
        if self.candidates.iter().any(|known| known.provider == provider && known.model == model) {
            return Ok(());
        }
        let said = settings.providers.get(provider).cloned().unwrap_or_default();
        let known = known(provider);
        let Some(base_url) = said.base_url.as_deref().or(known.map(|known| known.base_url)) else {
            return Err(format!(
                "there is no provider {provider:?}: write it, with its `base_url`, under `providers:` of {}",
                settings.file.display()
            ));
        };
        let key_env = self.key(settings, env, provider, said.key.as_ref(), known)?;
        let wire = match said.wire.or_else(|| provider.parse().ok()) {
            Some(wire) => wire.as_str(),
            // It speaks as `openai` does, but for what only that one takes.
            None => provider,
        };
        self.candidates.push(Candidate {
            provider: provider.to_owned(),
            wire: wire.to_owned(),
            model: model.to_owned(),
            base_url: format!("{}/", base_url.trim_end_matches('/')),
            key_env,
            price: price(settings, provider, model),
            context: known_model(provider, model).and_then(KnownModel::context),
        });
        Ok(())
    }

    /// The variable that holds the key of a provider, which is read now; `None`: it needs none.
    fn key(
        &mut self,
        settings: &Settings,
        env: &Env,
        provider: &str,
        said: Option<&SecretSource>,
        known: Option<&Known>,
    ) -> Result<Option<String>, String> {
        let usual = known.map(|known| SecretSource::Env(known.key.to_owned()));
        let Some(source) = said.or(usual.as_ref()) else { return Ok(None) };
        let variable = format!("{KEY_PREFIX}{}", provider.to_ascii_uppercase().replace('-', "_"));
        if !self.keys.contains_key(&variable) {
            let key = secret(env, source).map_err(|why| {
                format!(
                    "there is no key for the provider {provider}: {why}, or write where it is under `providers:` of {}",
                    settings.file.display()
                )
            })?;
            self.keys.insert(variable.clone(), key);
        }
        Ok(Some(variable))
    }
}

fn no_model(settings: &Settings, name: &str) -> String {
    if let Some(of) = KNOWN.iter().find(|of| known_model(of.name, name).is_some()) {
        return format!("there is no model {name:?}: write it with its provider, \"{}/{name}\"", of.name);
    }
    let known: Vec<&str> = settings.models.keys().map(String::as_str).collect();
    let known = if known.is_empty() { "there are none".to_owned() } else { known.join(", ") };
    format!(
        "there is no model {name:?}: write it under `models:` of {} ({known}), or write provider/model",
        settings.file.display()
    )
}

/// What a model costs: as the settings say, else as is known of it.
pub(super) fn price(settings: &Settings, provider: &str, model: &str) -> Option<Price> {
    let said = settings.prices.get(&format!("{provider}/{model}")).copied();
    said.or_else(|| known_model(provider, model).map(|known| known.price))
}

/// What is known of a provider without the settings.
struct Known {
    name: &'static str,
    base_url: &'static str,
    /// The variable in which its own programs look for the key.
    key: &'static str,
}

const fn provider(name: &'static str, base_url: &'static str, key: &'static str) -> Known {
    Known { name, base_url, key }
}

const KNOWN: [Known; 7] = [
    provider("openai", "https://api.openai.com/v1/", "OPENAI_API_KEY"),
    provider("deepseek", "https://api.deepseek.com/v1/", "DEEPSEEK_API_KEY"),
    provider("anthropic", "https://api.anthropic.com/v1/", "ANTHROPIC_API_KEY"),
    provider("google", "https://generativelanguage.googleapis.com/v1beta/", "GEMINI_API_KEY"),
    provider("groq", "https://api.groq.com/openai/v1/", "GROQ_API_KEY"),
    provider("mistral", "https://api.mistral.ai/v1/", "MISTRAL_API_KEY"),
    provider("together", "https://api.together.xyz/v1/", "TOGETHER_API_KEY"),
];

fn known(name: &str) -> Option<&'static Known> {
    KNOWN.iter().find(|known| known.name == name)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Location, load_settings};
    use crate::model::Wire;
    use crate::secret::ExposeSecret as _;

    const SETTINGS: &str = "models: { full: anthropic/claude, lite: home/org/small }
providers: { home: { base_url: 'http://127.0.0.1:1/v1' }, shop-2: { base_url: 'https://x.example/', wire: mistral, key: { env: SHOP } } }
prices: { anthropic/claude: { input: 3, output: 15, cached_input: 0.3 } }
";

    fn settings(text: &str) -> Settings {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("matins.yaml");
        std::fs::write(&file, text).unwrap();
        let (settings, problems) = load_settings(&Location::of_file(Path::new(&file)), &Env::default());
        assert!(!problems.has_errors(), "{}", problems.render(false));
        settings
    }

    fn llm(model: Option<&str>, fallback: &[&str]) -> Llm {
        let fallback = fallback.iter().map(|name| (*name).to_owned()).collect();
        Llm { model: model.map(ToOwned::to_owned), fallback, ..Llm::default() }
    }

    #[test]
    fn names_become_candidates_with_their_keys() {
        let env = Env::from_iter([("ANTHROPIC_API_KEY", "a-key"), ("SHOP", "s-key")]);
        let llm = llm(None, &["lite", "full", "openai/gpt", "shop-2/m", "anthropic/haiku"]);
        let found = models(&settings(SETTINGS), &env, &llm, None).unwrap();
        let told: Vec<_> = found
            .candidates
            .iter()
            .map(|c| {
                (
                    c.provider.as_str(),
                    c.wire.as_str(),
                    c.model.as_str(),
                    c.base_url.as_str(),
                    c.key_env.as_deref(),
                )
            })
            .collect();
        let anthropic = "https://api.anthropic.com/v1/";
        assert_eq!(
            told,
            [
                ("anthropic", "anthropic", "claude", anthropic, Some("MATINS_KEY_ANTHROPIC")),
                ("home", "home", "org/small", "http://127.0.0.1:1/v1/", None),
                ("shop-2", "mistral", "m", "https://x.example/", Some("MATINS_KEY_SHOP_2")),
                ("anthropic", "anthropic", "haiku", anthropic, Some("MATINS_KEY_ANTHROPIC")),
            ],
            "openai has no key, and full is there already"
        );
        let keys: Vec<_> =
            found.keys.iter().map(|(name, key)| (name.as_str(), key.expose_secret())).collect();
        assert_eq!(keys, [("MATINS_KEY_ANTHROPIC", "a-key"), ("MATINS_KEY_SHOP_2", "s-key")]);
        let price = Price { input: 3.0, output: 15.0, cached_input: 0.3, cache_write: 3.0 };
        assert_eq!(found.candidates[0].price, Some(price));
        assert_eq!(found.candidates[1].price, None, "nobody knows");
        let table = models(&settings(SETTINGS), &env, &self::llm(Some("anthropic/claude-opus-5"), &[]), None)
            .unwrap();
        assert_eq!(
            table.candidates[0].price.map(|price| price.output),
            Some(25.0),
            "of the program's own table"
        );
        assert_eq!(table.candidates[0].context, Some(1_000_000));
    }

    #[test]
    fn what_was_asked_for_goes_first() {
        let found = models(&settings(SETTINGS), &Env::default(), &llm(None, &[]), Some("lite")).unwrap();
        assert_eq!(found.candidates[0].model, "org/small");
        let found = models(&settings(SETTINGS), &Env::default(), &llm(Some("home/x"), &[]), None).unwrap();
        assert_eq!(found.candidates[0].model, "x");
    }

    #[test]
    fn without_model_provider_or_key_there_is_no_start() {
        let said = |text: &str, model: &str| {
            let failure =
                models(&settings(text), &Env::default(), &llm(Some(model), &["home/x"]), None).unwrap_err();
            assert_eq!(failure.code, "launch_error");
            failure.explanation
        };
        assert!(said("", "full").contains("there is no model \"full\": write it under `models:`"));
        assert!(said(SETTINGS, "big").contains("(full, lite)"));
        let bare = said("", "claude-opus-5");
        assert!(bare.ends_with("write it with its provider, \"anthropic/claude-opus-5\""), "{bare}");
        assert!(said("", "nowhere/x").contains("there is no provider \"nowhere\""));
        let why = said(SETTINGS, "full");
        assert!(
            why.contains("no key for the provider anthropic") && why.contains("ANTHROPIC_API_KEY"),
            "{why}"
        );
    }

    #[test]
    fn the_doctor_names_agents_without_a_model() {
        let dir = tempfile::tempdir().unwrap();
        let settings = settings(SETTINGS);
        let agent = |id: &str, model: &str| {
            let file = dir.path().join(format!("{id}.yaml"));
            std::fs::write(&file, format!("executor: {{ type: llm, model: {model} }}\n")).unwrap();
            let checked = crate::config::check_path(&file, &Env::default(), crate::time::from_ms(0));
            Arc::clone(&checked.agents[0])
        };
        let (good, bad) = (agent("good", "lite"), agent("bad", "openai/gpt"));
        assert!(check(&settings, &Env::default(), &[]).is_none());
        let fine = check(&settings, &Env::default(), &[Arc::clone(&good)]).unwrap();
        assert!(fine.remedy.is_none(), "{fine:?}");
        let found = check(&settings, &Env::default(), &[good, bad]).unwrap().found;
        assert!(
            found.starts_with("bad cannot ask a model: there is no key for the provider openai"),
            "{found}"
        );
    }

    #[test]
    fn every_provider_of_the_vocabulary_is_known() {
        let names: Vec<&str> = KNOWN.iter().map(|known| known.name).collect();
        assert_eq!(names, Wire::ALL.iter().map(|wire| wire.as_str()).collect::<Vec<_>>());
    }
}
